# Riyaz as a container that answers: `riyaz serve`, and every other command that needs no torch. See deploy/README.md.
#
#   docker build -t riyaz .
#
# BASE is any Debian or Ubuntu with Python from 3.11 on, its venv and its header files.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && apt-get install --yes --no-install-recommends g++
RUN python3 -m venv /opt/riyaz
COPY deploy/requirements.txt /build/
# A file with the settings of pip, for an index of your own, may be given as the secret `pip`. It is in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/riyaz/bin/pip install --require-hashes --only-binary :all: --requirement /build/requirements.txt
COPY pyproject.toml CMakeLists.txt LICENSE README.md /build/riyaz/
COPY native /build/riyaz/native
COPY page/package-lock.json /build/riyaz/page/
COPY src /build/riyaz/src
# SOURCE_DATE_EPOCH: seconds since 1970 of the commit, which the files of the wheel then have.
ARG SOURCE_DATE_EPOCH
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/riyaz/bin/pip wheel --no-deps --wheel-dir /build/wheels /build/riyaz \
    && /opt/riyaz/bin/pip install --no-deps --no-index /build/wheels/riyaz-*.whl \
    && /opt/riyaz/bin/python -c 'from riyaz import native; assert native.available(), native.why_not()'

FROM ${BASE}
LABEL org.opencontainers.image.title="riyaz" org.opencontainers.image.licenses="Apache-2.0"
# /data holds models, artifacts and results; everything else may be read-only. The number 10001 has no name elsewhere.
RUN echo 'riyaz:x:10001:10001::/data:/usr/sbin/nologin' >>/etc/passwd && echo 'riyaz:x:10001:' >>/etc/group \
    && mkdir /data && chown 10001:10001 /data
COPY --from=build /opt/riyaz /opt/riyaz
ENV PATH=/opt/riyaz/bin:$PATH HOME=/data RIYAZ_HOME=/data/riyaz PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Half a minute is for models that load slowly; /health needs no key.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["riyaz"]
# Other machines reach the server, so it refuses to start without the file of keys.
CMD ["serve", "smollm2-135m", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/riyaz-keys", "--no-page"]
