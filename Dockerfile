# One image for everything of ours: Prefect's server and worker, Dask, and the command line. It works on any Debian with
# Python 3.11 to 3.13, so a base of one's own will do: docker build --build-arg BASE_IMAGE=…
ARG BASE_IMAGE=python:3.12.12-slim-bookworm

FROM ${BASE_IMAGE} AS python
RUN python3 -m ensurepip --version > /dev/null 2>&1 \
    || (apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*)

# uv takes seconds for what takes pip minutes. Where it finds no packages, by a mirror that only pip is told of, pip does it.
FROM python AS dependencies
RUN python3 -m venv /opt/clustering && python3 -m venv /opt/uv
COPY requirements.lock requirements.image.lock ./
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock | /opt/uv/bin/pip install --no-cache-dir --require-hashes -r /dev/stdin
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/clustering \
        --no-deps --require-hashes -r requirements.image.lock \
    || /opt/clustering/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.image.lock

FROM dependencies AS wheel
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY clustering clustering
COPY flows flows
RUN /opt/clustering/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python AS program
RUN useradd --uid 1000 --home-dir /work --no-create-home clustering \
    && install --directory --owner clustering --group clustering /work /work/kernels
COPY --from=dependencies /opt/clustering /opt/clustering
COPY --from=wheel /wheel /wheel
# Compiled kernels are kept in one place, which containers may share.
ENV PATH=/opt/clustering/bin:$PATH PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 NUMBA_CACHE_DIR=/work/kernels
RUN pip install --no-cache-dir --no-deps /wheel/*
WORKDIR /work

# The kernels as they are compiled for the processor of this machine. On a processor of another kind, numba looks for
# kernels of that kind in the same folder, and the first run compiles them there.
FROM program AS kernels
COPY tests/kernels.py /
USER clustering
RUN python /kernels.py

FROM program
COPY --from=kernels --chown=clustering:clustering /work/kernels kernels
COPY configs configs
USER clustering
CMD ["clustering", "--help"]
