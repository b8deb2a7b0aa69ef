# The image in which tasks of one framework run. `k12ai images build` makes the context, and names the image.
#
# BASE is any image with Python 3.11 or newer and its venv module.
ARG BASE=python:3.13-slim

# The libraries have a stage of their own: what pip is told about where to download ends with it.
FROM ${BASE} AS libraries
LABEL k12ai.stage="libraries"
USER 0
RUN python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ARG PIP_TRUSTED_HOST
ARG PIP_PROXY
ARG PIP_TIMEOUT
ARG PIP_RETRIES
COPY requirements.txt certificates.pem /build/
# What lies on the disk of the machine that builds.
COPY wheels /build/wheels/
# What the base's own Python has, a GPU's libraries for instance, tasks can import too. pip stays behind:
# a task has no network, and would start later with it. Nothing checks compiled files against their
# sources later on: neither can change. PyTorch has files that only a newer Python understands.
RUN set -e; \
    python3 -m venv --without-pip --system-site-packages /opt/k12ai; \
    cd /opt/k12ai; \
    ln -s lib/python3.*/site-packages packages; \
    if [ -s /build/certificates.pem ]; then export PIP_CERT=/build/certificates.pem; fi; \
    if [ -s /build/requirements.txt ]; then \
      python3 -m venv /build/pip; \
      /build/pip/bin/python3 -m pip --python bin/python3 install --requirement /build/requirements.txt --find-links /build/wheels \
        --no-cache-dir --no-compile --no-input --disable-pip-version-check --progress-bar off; \
    fi; \
    bin/python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/tests/' packages/ \
      || echo "What is for other versions of Python is left as it is."; \
    chmod -R u=rwX,go=rX .

FROM ${BASE}
USER 0
# A task may write nowhere but in its project, so what Python would compile has to be there already. The
# official images of Python leave that out for the standard library.
RUN python3 -c 'import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path("stdlib"), \
      quiet=2, workers=0, rx=re.compile("/(dist-packages|site-packages|tests?|idlelib|lib2to3)/"))'
COPY --from=libraries /opt/k12ai /opt/k12ai
# Last, because it is what changes: a new version of k12ai downloads nothing again.
COPY packages /opt/k12ai/packages/
RUN python3 -m compileall -qq --invalidation-mode unchecked-hash /opt/k12ai/packages/k12ai
# Nothing in a student's project comes between Python and its libraries.
ENV PATH=/opt/k12ai/bin:$PATH PYTHONNOUSERSITE=1 LANG=C.UTF-8
WORKDIR /
ENTRYPOINT []
CMD ["python3"]
