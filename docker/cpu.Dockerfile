# ne_jax on CPUs: trains as `make run` does, or runs what is named behind the image, such as `make test`.
#
#   docker build -f docker/cpu.Dockerfile -t ne_jax .
#   docker run --rm -v ne_jax-results:/home/ne_jax/ne_jax/results ne_jax
#
# Written without a Docker daemon at hand, so never built: tests/test_container.py checks what it
# names, and hadolint finds nothing. Beside docker/cuda.Dockerfile, which is the same for a GPU.
FROM python:3.12.12-slim-bookworm

# make runs the two commands; git says in versions.json which commit made a result. MuJoCo's own renderer draws by EGL,
# with Mesa's, or by OSMesa (MUJOCO_GL=osmesa); the default renderer is JAX, and needs neither.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libegl1 libgl1-mesa-dri libosmesa6 make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 ne_jax && install --directory --owner=ne_jax --group=ne_jax /home/ne_jax/ne_jax
USER 1000
WORKDIR /home/ne_jax/ne_jax

ENV DEVICE=cpu PYTHONUNBUFFERED=1

# Packages change rarely and code often: a layer for each.
COPY --chown=ne_jax Makefile constraints.txt requirements*.txt ./
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make venv
COPY --chown=ne_jax . .
# What make looks at is newer than the lists of packages. A volume that is mounted over results/ takes on its owner.
RUN touch .venv/.ready-cpu && mkdir -p results

ENV PATH=/home/ne_jax/ne_jax/.venv/bin:$PATH
VOLUME /home/ne_jax/ne_jax/results
CMD ["make", "run"]
