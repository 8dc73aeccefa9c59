# One image for everything of ours: Prefect's server and worker, Dask, and the command line. It works on any Debian with
# Python 3.11 to 3.13, so a base of one's own will do: docker build --build-arg BASE_IMAGE=…
ARG BASE_IMAGE=python:3.12.12-slim-bookworm

FROM ${BASE_IMAGE} AS python
RUN python3 -m ensurepip --version > /dev/null 2>&1 \
    || (apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*)

FROM python AS build
RUN python3 -m venv /opt/clustering
ENV PATH=/opt/clustering/bin:$PATH
WORKDIR /build
COPY requirements.image.lock .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.image.lock
COPY pyproject.toml README.md LICENSE ./
COPY clustering clustering
COPY flows flows
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python
RUN useradd --system --uid 1000 --create-home --home-dir /work clustering \
    && install --directory --owner clustering /work/kernels
COPY --from=build /opt/clustering /opt/clustering
# Compiled kernels are kept in one place, which containers may share.
ENV PATH=/opt/clustering/bin:$PATH PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 NUMBA_CACHE_DIR=/work/kernels
WORKDIR /work
COPY configs configs
USER clustering
CMD ["clustering", "--help"]
