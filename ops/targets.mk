# Kubernetes: validate, build, deploy, release. Included by the Makefile, which defines BIN, PYTEST and `install`.
OVERLAY ?= local
PLATFORM ?= clusters/local/infrastructure

.PHONY: tools tools-of-tests validate definitions test-manifests pull-charts chart-keys test-charts images release secrets platform deploy undeploy flux

tools: install ## build the tools of `make validate` once, so that it works offline; other targets build their own
	@nice $(BIN)/python -m ops.validate.schemas

tools-of-tests: tools
	@nice $(BIN)/python -m ops.tools helm sops age-keygen actionlint

validate: tools ## check the manifests: Kustomize, kubeconform, our own rules
	@$(BIN)/python -m ops.validate

definitions: install ## render RabbitMQ's definitions from apps/contract
	@$(BIN)/python -m ops.definitions

test-manifests: tools-of-tests ## run the tests of the manifests, of the deployment commands, and of minicluster
	@$(PYTEST) tests/manifests minicluster -m "not thorough"

pull-charts: install ## download the real charts of helm-releases/ to a folder outside of this repository: CHARTS=folder
	@$(BIN)/python -m ops.charts pull $(CHARTS)

chart-keys: install ## record the value keys of the real charts (ops/validate/chart-keys): CHARTS=folder
	@$(BIN)/python -m ops.charts keys $(CHARTS)

test-charts: install ## render the real charts with our values, and compare them with the stand-ins: CHARTS=folder
	@$(BIN)/python -m ops.charts test $(CHARTS)
	@$(BIN)/python -m minicluster.stand_ins.chart_comparison $(CHARTS)

images: install ## build the images of the overlays with docker, podman or buildah; BASE=image replaces the base image
	@$(BIN)/python -m ops.images

release: install ## build, push if REGISTRY= is given, set the tag in the overlays, commit: make release VERSION=1.2.3
	@$(BIN)/python -m ops.release "$(VERSION)"

secrets: install ## create every Secret in the cluster, or with FLUX=1 as encrypted files for git
	@$(BIN)/python -m $(if $(FLUX),ops.sops,ops.secrets)

platform: install ## install RabbitMQ, Redis, NGINX and KEDA without Flux; PLATFORM=helm-releases for three nodes
	@$(BIN)/python -m ops.platform $(PLATFORM)

deploy: install ## apply an overlay without Flux, workers first, and wait: make deploy OVERLAY=local [FIRST=api]
	@$(BIN)/python -m ops.deploy up $(OVERLAY) $(FIRST)

undeploy: install ## delete an overlay; namespaces and Secrets are kept
	@$(BIN)/python -m ops.deploy down $(OVERLAY)

flux: install ## let Flux deploy from this clone's origin and branch
	@$(BIN)/python -m ops.flux
