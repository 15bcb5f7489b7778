# Kubernetes: validate, build, deploy, release. The Makefile includes this; it sets BIN and PYTEST, and has `install`.
OVERLAY ?= local
PLATFORM ?= clusters/local/infrastructure

.PHONY: tools tools-of-tests validate definitions test-manifests pull-charts chart-keys test-charts images release secrets platform deploy undeploy flux

tools: install ## build what `make validate` needs (once), so that it works offline; other verbs build their own
	@nice $(BIN)/python -m ops.validate.schemas

tools-of-tests: tools
	@nice $(BIN)/python -m ops.tools helm sops age-keygen actionlint

validate: tools ## say what is wrong with the manifests: Kustomize, kubeconform, our own rules
	@$(BIN)/python -m ops.validate

definitions: install ## render RabbitMQ's definitions from apps/contract
	@$(BIN)/python -m ops.definitions

test-manifests: tools-of-tests ## tests of the manifests, of the commands below, and of the cluster that is built here
	@$(PYTEST) tests/manifests minicluster -m "not thorough"

pull-charts: install ## fetch the real charts of helm-releases/ into a folder outside of this repository: CHARTS=folder
	@$(BIN)/python -m ops.charts pull $(CHARTS)

chart-keys: install ## record the keys of the real charts' values (ops/validate/chart-keys): CHARTS=folder
	@$(BIN)/python -m ops.charts keys $(CHARTS)

test-charts: install ## render the real charts with our values, and compare the stand-ins with them: CHARTS=folder
	@$(BIN)/python -m ops.charts test $(CHARTS)
	@$(BIN)/python -m minicluster.stand_ins.chart_comparison $(CHARTS)

images: install ## build both images as the overlays name them, with docker, podman or buildah; BASE= if you like
	@$(BIN)/python -m ops.images

release: install ## build, push to REGISTRY= if given, set the tag in the overlays, commit: make release VERSION=1.2.3
	@$(BIN)/python -m ops.release "$(VERSION)"

secrets: install ## make every Secret in the cluster, or with FLUX=1 as encrypted files for git
	@$(BIN)/python -m $(if $(FLUX),ops.sops,ops.secrets)

platform: install ## install RabbitMQ, Redis, NGINX and KEDA without Flux; PLATFORM=helm-releases for three nodes
	@$(BIN)/python -m ops.platform $(PLATFORM)

deploy: install ## apply an overlay without Flux, workers first, and wait for it: make deploy OVERLAY=local [FIRST=api]
	@$(BIN)/python -m ops.deploy up $(OVERLAY) $(FIRST)

undeploy: install ## take an overlay away; namespaces and Secrets stay
	@$(BIN)/python -m ops.deploy down $(OVERLAY)

flux: install ## let Flux follow this clone's origin and branch
	@$(BIN)/python -m ops.flux
