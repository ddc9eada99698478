# The site of a consortium. From the project's folder:
#   docker build -f deploy/site.Dockerfile -t consilium-site .
# Not run by the tests, which have no Docker engine: they read it (tests/test_deploy.py).
FROM python:3.11-slim AS build
# The build of torch: one without CUDA is far smaller, where pip's own settings name its index.
ARG TORCH=torch==2.13.0
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir "$TORCH" \
 && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY flows flows
COPY tasks tasks
COPY federated federated
COPY models models
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/consilium --shell /usr/sbin/nologin consilium \
 && install -d -m 700 -o consilium -g consilium /var/lib/consilium/home
COPY --from=build /venv /venv
COPY params.yaml /app/params.yaml
ENV PATH=/venv/bin:$PATH \
    CONSILIUM_HOME=/var/lib/consilium/home \
    PREFECT_HOME=/var/lib/consilium/home/prefect \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1
WORKDIR /var/lib/consilium
USER consilium
# The site dials out: it has no port. Well is one whose process is there and may write to its home.
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s \
  CMD ["python", "-c", "import os; assert os.access(os.environ['CONSILIUM_HOME'], os.W_OK)"]
CMD ["consilium", "site", "start"]
