# The environment of Finescale, for pods and wherever containers run. The workflow is not in it:
# its sources travel with each run, so that a changed rule needs no new image.
#
#   docker build -t finescale:0.1.0 .                          the locked wheels
#   docker build -t finescale:0.1.0-esmf --target esmf .       ESMF and xESMF besides
#
# ARG BASE pins the system by its digest: --build-arg BASE=debian@sha256:...

ARG BASE=debian:bookworm-slim

FROM $BASE AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
    && useradd --uid 1000 --home-dir /tmp --shell /bin/sh finescale
COPY --chmod=755 deploy/gke/pip /usr/local/bin/pip
# The root file system may be read-only: all that is written by the way goes to /tmp.
ENV PATH=/usr/local/bin:/opt/finescale/bin:/usr/bin:/bin \
    HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba \
    LANG=C.UTF-8 PYTHONUNBUFFERED=1
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title=finescale \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses=Apache-2.0
USER 1000:1000
WORKDIR /workdir

FROM base AS uv
USER root
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
COPY envs/bootstrap.lock /build/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install -q --require-hashes -r /build/bootstrap.lock
COPY pyproject.toml envs/requirements.lock /build/

# What pyproject.toml asks for at run time, in the versions and by the hashes of the one lock.
FROM uv AS wheels
RUN /opt/uv/bin/uv venv -q /opt/finescale \
    && /opt/uv/bin/uv pip install -q --no-cache --compile-bytecode -p /opt/finescale/bin/python \
        --require-hashes -r /build/pyproject.toml -c /build/requirements.lock

# Conda gives ESMF, which has no wheel; the locked wheels lie over it, so that both images
# compute with the same libraries. Not built where Finescale is tested: no channel is in reach.
FROM mambaorg/micromamba:2 AS conda
USER root
COPY --from=uv /opt/uv/bin/uv /build/requirements.lock /build/pyproject.toml /build/
COPY envs/conda-lock.yml /build/
RUN micromamba create -q -y -p /opt/finescale -f /build/conda-lock.yml \
    && /build/uv pip install -q --no-cache --compile-bytecode -p /opt/finescale/bin/python \
        --require-hashes -r /build/pyproject.toml -c /build/requirements.lock

FROM base AS esmf
COPY --from=conda /opt/finescale /opt/finescale

FROM base AS finescale
COPY --from=wheels /opt/finescale /opt/finescale
