# One image for each service, from one file:
#
#   docker build --build-arg SERVICE=request-manager --tag flotilla/request-manager .
#
# SERVICE is a folder of services/. `fleet` is the command line: it makes keys, migrates, asks. Packages come from
# constraints.txt, by hash, in a layer of their own, which stays cached when only our code changes.
ARG PYTHON=python:3.12-slim-bookworm

# Only the lists of packages. This stage is rebuilt after every change, and its result is mostly the same, so later
# stages stay cached.
FROM ${PYTHON} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name pyproject.toml ! -path ./constraints.txt ! -path ./tools/uv.txt -delete \
    && find . -type d -empty -delete

FROM ${PYTHON} AS packages
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 UV_CACHE_DIR=/var/cache/uv
WORKDIR /src
RUN --mount=from=manifests,source=/src/tools,target=/tools \
    pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r /tools/uv.txt
COPY --from=manifests /src .
ARG SERVICE
# The resolver lists the packages that this service needs; their entries of constraints.txt, with hashes, are installed.
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip compile --quiet --no-annotate --no-header --constraints constraints.txt "services/$SERVICE/pyproject.toml" >/needed.txt \
    && grep -v -e '^-e' -e '^\.' -e '^file:' /needed.txt >/names.txt \
    && awk 'NR == FNR { needed[$1]; next } /^[^ ]/ { found = $1 in needed } found' /names.txt constraints.txt >/locked.txt \
    && { test "$(grep -c '^[^ ]' /locked.txt)" -eq "$(wc -l </names.txt)" || { echo 'constraints.txt is behind: make lock'; exit 1; }; } \
    && uv pip install --quiet --target /packages --compile-bytecode --no-build --no-deps --require-hashes -r /locked.txt

FROM packages AS code
COPY . .
RUN uv pip install --quiet --offline --target /code --compile-bytecode --no-deps \
        $(sed -n 's/^-e //p' /needed.txt) "services/$SERVICE"
RUN module=$(if [ "$SERVICE" = fleet ]; then echo command_line; else echo "$SERVICE" | tr - _; fi) \
    && printf 'import runpy\n\nrunpy.run_module("%s", run_name="__main__", alter_sys=True)\n' "$module" >/start.py

FROM ${PYTHON}
# A container has its own network, so the service listens on all of it. HOME is for libraries that look for files there.
ENV PYTHONPATH=/app/code:/app/packages PYTHONUNBUFFERED=1 HOME=/tmp \
    FLOTILLA_HOST=0.0.0.0 FLOTILLA_PORT=8080
# The final image needs no pip; secrets are mounted. Python's own library comes without bytecode, and a read-only file
# system cannot cache it: without compileall, each start and each probe would compile it again. A volume that is mounted
# for the first time takes its owner from these folders.
RUN pip uninstall --quiet --yes --root-user-action=ignore pip \
    && python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install --directory --owner=65532 --group=65532 /run/secrets /state
COPY --from=packages /packages /app/packages
COPY --from=code /code /app/code
COPY --from=code /start.py /app/start.py
WORKDIR /app
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# A process that answers is alive, also when its stores are down. /readyz tells whether it is ready.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --start-interval=2s \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['FLOTILLA_PORT'] + '/livez', timeout=2)"]
ENTRYPOINT ["python", "-P", "/app/start.py"]
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="flotilla-${SERVICE}" \
      org.opencontainers.image.description="Flotilla: run AI agents as a fleet of services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
