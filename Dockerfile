# Charloom in a container. `docker compose up` is the usual way in; docs/container.md
# tells the rest. Works with BuildKit and with the classic builder.

FROM python:3.11-slim-bookworm AS build

# Where packages come from is pip's own business: these reach it when they are
# given with --build-arg. Wheels laid into a folder wheels/ beside this file are
# used too, which is how to bring a PyTorch built for the processor only.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /opt/charloom
RUN python -m venv /opt/venv

# Dependencies first: this layer is made again only when the pins change.
COPY pyproject.toml constraints.txt wheel[s] /wheels/
RUN cd /wheels \
 && python -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))' > requirements.txt \
 && /opt/venv/bin/pip install --find-links /wheels -c constraints.txt -r requirements.txt \
 && cd /opt/venv/lib/python*/site-packages/torch \
 && rm -rf include share test bin/protoc* bin/*[Tt]est*

# One package, charloom, with the migrations and the shipped models inside.
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY models models
COPY app app
RUN /opt/venv/bin/pip install --no-deps . \
 && /opt/venv/bin/python -m compileall -q /opt/venv/lib/python*/site-packages/charloom


FROM python:3.11-slim-bookworm

RUN groupadd --gid 10001 charloom \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin charloom \
 && install -d -o 10001 -g 10001 /data

COPY --from=build /opt/venv /opt/venv
# A named volume mounted here is filled from the image when it is first made.
COPY --chown=10001:10001 models /models

# Compiled code is kept in the data volume, because the root is read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/data/compiled \
    CHARLOOM_HOST=0.0.0.0 \
    CHARLOOM_PORT=8000 \
    CHARLOOM_DATA_DIR=/data \
    CHARLOOM_MODELS_DIR=/models

WORKDIR /data
USER 10001:10001
VOLUME ["/data", "/models"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['CHARLOOM_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["charloom"]
CMD ["serve"]
