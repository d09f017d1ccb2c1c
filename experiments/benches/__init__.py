"""The longer parts of the programs `bench` and `count`: they may import all that programs may."""
