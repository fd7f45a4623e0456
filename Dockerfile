# Firstword in a container: `cpu` runs the starter models anywhere, `gpu` a model of yours on NVIDIA.
#
#   docker build --target cpu -t firstword:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 --shm-size=1g -v firstword:/var/lib/firstword \
#     -e FIRSTWORD_AUTH__API_KEYS='{"me":"a-long-random-key"}' firstword:cpu
#
#   docker build --target gpu -t firstword:gpu .
#   docker run --rm -p 127.0.0.1:8000:8000 --gpus all --ipc=host -v firstword:/var/lib/firstword \
#     -e FIRSTWORD_AUTH__API_KEYS='{"me":"a-long-random-key"}' firstword:gpu
#
# In a container the server must listen on 0.0.0.0, which others may reach, so it does not start without a key. Where only
# you can reach the published port, `-e FIRSTWORD_AUTH__ALLOW_ANONYMOUS=true` does instead of one. The engine's processes share
# memory: Docker's own 64 MB of /dev/shm are too few. Behind a mirror: `--build-arg UV_DEFAULT_INDEX=...`, `UV_FIND_LINKS=...`
# or `PIP_INDEX_URL=...`. Needs BuildKit. Another command of the product: `docker run ... firstword:cpu bench run questions.txt`.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# One base for both: the CUDA wheels in gpu.txt bring their own runtime libraries and leave only the driver to the host, so an
# NVIDIA base image would hold a second CUDA. The image's own Python has its headers, which Triton compiles against.
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS base
ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /srv/firstword

# Everything that installs; nothing of it reaches an image but the environment it fills.
FROM base AS install
ARG UV_DEFAULT_INDEX
ARG UV_FIND_LINKS
ARG PIP_INDEX_URL
ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9 && uv venv --python /usr/local/bin/python3 /opt/venv

# Dependencies alone: these layers change with the locks, not with the code.
FROM install AS install-cpu
COPY configs/locks/cpu.txt configs/locks/cpu.txt
# The lock is whole, so nothing is resolved; --torch-backend finds the CPU build of torch that it names.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --torch-backend=cpu -r configs/locks/cpu.txt

FROM install AS install-gpu
COPY configs/locks/gpu.txt configs/locks/gpu.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps -r configs/locks/gpu.txt

# The project, as an editable install: its settings are looked up beside its packages (configs/, docs/). The environment that
# this makes holds the command and a path, and is laid over the dependencies.
FROM install AS project
COPY pyproject.toml README.md ./
COPY configs configs
COPY docs docs
COPY loadtest loadtest
COPY retrieval retrieval
COPY server server
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --editable . && python -m compileall -q loadtest retrieval server

FROM base AS runtime
RUN useradd --uid 10001 --user-group --home-dir /var/lib/firstword --create-home --shell /usr/sbin/nologin firstword
# Models, documents, the turn log and every cache outlive the container here.
ENV FIRSTWORD_DATA_DIR=/var/lib/firstword \
    HF_HOME=/var/lib/firstword/huggingface \
    XDG_CACHE_HOME=/var/lib/firstword/cache \
    TRITON_CACHE_DIR=/var/lib/firstword/cache/triton \
    VLLM_NO_USAGE_STATS=1
VOLUME /var/lib/firstword
EXPOSE 8000
# Live, not ready: loading a model may take minutes and is no reason to restart. No proxy, whatever the environment says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["firstword"]
CMD ["serve", "--host", "0.0.0.0"]

FROM runtime AS gpu
# Triton and torch.compile build their kernels' launchers with a compiler, at run time.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=install-gpu /opt/venv /opt/venv
COPY --from=project /opt/venv /opt/venv
COPY --from=project /srv/firstword /srv/firstword
USER 10001:10001
CMD ["serve", "--host", "0.0.0.0", "--config", "configs/gpu.toml"]

# Last, so that it is what a build without --target makes.
FROM runtime AS cpu
# The one library that vLLM's CPU kernels want from the system and Debian's slim image lacks (ldd on vllm/*.so).
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
# Eager mode needs no compiler, but for one: vLLM compiles what ranks log-probabilities, and without g++ the first request for
# them kills the engine. Nothing is compiled then. For engine.enforce_eager=false: drop this, and install g++ above.
ENV TORCH_COMPILE_DISABLE=1
COPY --from=install-cpu /opt/venv /opt/venv
COPY --from=project /opt/venv /opt/venv
COPY --from=project /srv/firstword /srv/firstword
USER 10001:10001
