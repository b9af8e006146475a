# Two commands do everything on a machine with Python 3.11+, pip and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test suite slow lint docs new-algorithm new-bridge new-format bench bench-peers peers family ope verdict distribution data exercise collapse guidance leaderboard levers peers-study evidence live-promotion live-harm lock \
    hopper-mixed cartpole-mixed clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Segue needs Python 3.11 or newer; $(PYTHON) is older (make PYTHON=python3.12 …)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# SAC from scratch, the plain handover of a pretrained policy to SAC, and the recipe that keeps what it has and climbs;
# the same budget of live steps and the same networks, three seeds.
SMALL := --offline.hidden-sizes 128 128 --offline.batch-size 128
SAC := --online sac --online.hidden-sizes 128 128 --online.batch-size 128
demo: install
	$(BIN)/segue compare --env Hopper-v5 --dataset segue:hopper-mixed --online ppo --online-steps 30000 \
	    --seeds 3 --eval-every 2000 --eval-episodes 5 \
	    --arm "scratch" "--dataset None --replay online-only $(SAC)" \
	    --arm "plain handover" "--offline td3-bc --offline-steps 11000 $(SMALL) $(SAC)" \
	    --arm "segue" "--offline bc --offline-steps 11000 $(SMALL) --offline.loss nll --offline.top-fraction 0.1 \
	        --online ppo --online.hidden-sizes 128 128 --online.actor-learning-rate 1e-4 \
	        --online.value-learning-rate 1e-3" \
	    --out runs/demo

# Annotations of shapes and types are checked where every part is used at least once; it takes longer, so that these
# tests run only so.
CHECKED := tests/networks tests/replay
TYPED := --jaxtyping-packages=segue.core,segue.rng,segue.policy,segue.networks,segue.algorithms,segue.bridges,segue.replay,segue.training,segue.ope,segue.microbatches,checked.annotations
# One worker more than cores: a test that waits for a process or the disk leaves its core to another.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# The checks of lint take one core for half a minute: beside the tests, not before them.
test: install
	+$(MAKE) --no-print-directory --jobs=2 lint suite

suite: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(CHECKED:%=--ignore=%)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TYPED) src/segue/conformance $(CHECKED)

# What takes minutes: more combinations of the same claims.
slow: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow $(CHECKED:%=--ignore=%)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow $(TYPED) src/segue/conformance $(CHECKED)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/prose.py

# The documentation site, docs/_build/index.html: without network, every warning and broken link an error.
docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --conf-dir docs . docs/_build

# How fast it is, beside its targets; twelve minutes on two cores. With the peers where `make
# bench-peers` (or `make peers`) has installed them.
bench: install
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/peers/.installed bench

# Every algorithm on the bundled datasets, without any bridge: studies/family; about an hour a seed on one core.
family: install
	$(BIN)/python -m studies.family

# Losses and gradients against other libraries (docs/peers.md), in an environment apart: d3rlpy asks for an older
# Gymnasium than Segue does, and works with Segue's.
peers: $(VENV)/peers/.installed
	$(VENV)/peers/bin/python -m pytest tests/peers

$(VENV)/peers/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[peers]'
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'd3rlpy>=2.8,<3'
	@touch $@

# Benchmark logs into the local Minari root, from stored snapshots and a planner: studies/data; some minutes.
data: install
	$(BIN)/python -m studies.data

# Scratch, fine-tune, fine-tune with a Q-filter: studies/exercise. This and the next three go on where they stopped, and
# take --full for the whole grid: $(BIN)/python -m studies.exercise --full
exercise: install
	$(BIN)/python -m studies.exercise

# When the plain handover collapses: studies/collapse.
collapse: data
	$(BIN)/python -m studies.collapse

# SAMG on four algorithms, and each of them alone: studies/guidance.
guidance: install
	$(BIN)/python -m studies.guidance

# d3rlpy's fit and fit_online, SBX and stable-baselines3 from scratch, and Segue's recipes on the same data: studies/peers;
# about an hour per seed and task on one core.
peers-study: $(VENV)/peers/.installed data
	$(VENV)/peers/bin/python -m studies.peers

# Recipes on one live budget, RLPD from scratch among them: studies/leaderboard; under an hour per task and seed.
leaderboard: data
	$(BIN)/python -m studies.leaderboard

# What each lever and bridge does to two handovers: studies/levers; half an hour a seed.
levers: install
	$(BIN)/python -m studies.levers

# The policy distribution of IQL and AWAC: studies/distribution; GLUCOSE names NeoRL-2's simglucose-val.npz.
distribution: data
	$(BIN)/python -m studies.distribution $(if $(GLUCOSE),--glucose $(GLUCOSE))

# Off-policy estimators against exactly known values: studies/ope; a few minutes on two cores.
ope: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[healthcare]'
	$(BIN)/python -m studies.ope

# How often the offline verdict is "yes", on noise and where a better policy exists: studies/verdict; half an hour.
verdict: install
	$(BIN)/python -m studies.verdict

# How often live evidence errs and how soon it decides: studies/evidence; twenty-five minutes of one busy core.
evidence: install
	$(BIN)/python -m studies.evidence

# How often live promotion errs, and how soon it decides, in simulated logs: studies/live_promotion; half an hour.
live-promotion: install
	$(BIN)/python -m studies.live_promotion

# A policy made worse on purpose: how much of a day's traffic meets it.
live-harm: install
	$(BIN)/python -m studies.live_harm
	$(BIN)/python -m studies.live_harm.alarms

# The bundled dataset: our own SAC run, and 100,000 steps of three of its policies.
hopper-mixed: install
	$(BIN)/segue run --env Hopper-v5 --online sac --online-steps 80000 --eval-every 5000 --warmup-steps 5000 \
	    --keep-policies --out runs/hopper-sac
	rm -f src/segue/data/bundled/hopper-mixed.npz
	$(BIN)/segue collect random:20000 runs/hopper-sac/checkpoints/run/seed-0/step-30000:35000 \
	    runs/hopper-sac/checkpoints/run/seed-0/step-70000:45000 \
	    --env Hopper-v5 --to npz:src/segue/data/bundled/hopper-mixed.npz

# The bundled discrete dataset: our own discrete SAC run, and 20,000 steps of random actions and two of its policies.
cartpole-mixed: install
	$(BIN)/segue run --env CartPole-v1 --online discrete-sac --online-steps 10000 --eval-every 500 --warmup-steps 500 \
	    --keep-policies --out runs/cartpole-sac
	rm -f src/segue/data/bundled/cartpole-mixed.npz
	$(BIN)/segue collect random:5000 runs/cartpole-sac/checkpoints/run/seed-0/step-2000:7000 \
	    runs/cartpole-sac/checkpoints/run/seed-0/step-4000:8000 \
	    --env CartPole-v1 --to npz:src/segue/data/bundled/cartpole-mixed.npz

# A file that works, its registration, its test and its page, for you to change: make new-algorithm NAME=my-method
new-algorithm new-bridge new-format: install
	$(BIN)/python docs/new.py $(@:new-%=%) "$(NAME)"

# Pin what pyproject.toml allows, without addresses.
lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --extra dev --upgrade --strip-extras --no-header --no-emit-index-url \
	    --no-emit-trusted-host --no-emit-find-links --no-annotate --output-file requirements.lock pyproject.toml
	sed -i '/^segue @/d' requirements.lock  # the extra that names this package; it is installed from the checkout

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
