"""Rows of a run as a comparison reads them, made by hand, and the config that they would be of."""

from configs import continual


def rows(task_count=2):
    """A run of 1,000 frames with a switch every 250, logged every 125; one update a frame from frame 100 on."""
    found = []
    for i in range(9):
        frame = 125 * i
        row = {"frame": frame, "train/updates": max(0.0, frame - 100.0), "plasticity/fau": 0.5 + frame / 1e4}
        row |= {"plasticity/dormant_ratio": 0.1, "plasticity/density": 0.2, "time/frames_per_second": 100.0 + i}
        row |= {"eval/return": float(frame), "continual/task": float(frame // 250 % task_count)}
        row |= {"continual/forgetting": 3.0 * i, "continual/recovery_frames": None}
        found += [row, {"frame": frame + 60, "plasticity/fau": 9.0}]  # a measurement between two log points
    found[0]["time/frames_per_second"] = None
    found.pop()
    found[-1]["continual/task"] = found[-3]["continual/task"]  # the last one is of the last phase
    return found


def config_of():
    config = continual.get_config("smoke")
    config.total_frames, config.env.physics_every, config.seeds = 1_000, 250, (0, 1)
    return config
