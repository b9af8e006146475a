"""LeRobot, NeoRL and d3rlpy; converting; mixtures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_logs import as_dict, make_episodes, same_log

import segue
from segue.data import uri_of
from segue.data.convert import convert
from segue.errors import DataError

MADE = make_episodes([(3, True), (4, False)])
LOW, SPAN = st.floats(-50, 50, width=32), st.floats(0.5, 60, width=32)


def lerobot(folder: Path, version: str, made=MADE, promised: int = 2) -> str:
    """A LeRobot dataset: one file per episode in version 2, one for all in version 3."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    log = as_dict(made, next_observations=False)
    length = [len(episode.rewards) for episode in made]
    rows = pa.table(
        {
            "observation.state": log["observations"].tolist(),
            "action": log["actions"].tolist(),
            "frame_index": np.concatenate([np.arange(n) for n in length]),
            "episode_index": np.repeat(np.arange(len(made)), length),
        }
    )
    names = {"motors": ["hip", "knee", "foot"]}
    info = {
        "codebase_version": version,
        "total_episodes": promised,
        "features": {"observation.state": {"names": names}},
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    known = [{"episode_index": i, "length": n} for i, n in enumerate([*length, 9])][:promised]
    if version == "v2.1":
        (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
        for i in range(len(made)):
            part = rows.filter(pa.compute.equal(rows["episode_index"], i))
            pa.parquet.write_table(part, folder / f"data/chunk-000/episode_{i:06d}.parquet")
    else:
        (folder / "meta/episodes/chunk-000").mkdir(parents=True)
        pa.parquet.write_table(pa.Table.from_pylist(known), folder / "meta/episodes/chunk-000/file-000.parquet")
        pa.parquet.write_table(rows, folder / "data/chunk-000/file-000.parquet")
    return f"lerobot:{folder}"


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_gives_state_action_and_a_reward_by_rule(version: str, tmp_path: Path) -> None:
    uri = lerobot(tmp_path / "robot", version, promised=3)
    dataset = segue.load(f"{uri}?reward=success")
    assert dataset.episode_lengths.tolist() == [3, 4]
    assert dataset.episode_terminals.all()
    assert dataset.rewards.tolist() == [0, 0, 1, 0, 0, 0, 1]
    assert dataset.encoding.observations[0] == "observation.state[hip]"
    assert "2 of 3 episodes are here; missing: 2" in dataset.notes
    assert any("no rewards" in note for note in segue.load(tmp_path / "robot").notes)


def test_lerobot_episodes_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    lerobot(tmp_path / "robot", "v2.1")
    lines = tmp_path / "robot/meta/episodes.jsonl"
    lines.write_text(lines.read_text().replace('"length": 4', '"length": 5'))
    with pytest.raises(DataError, match="episode 1 has 4 rows, its metadata say 5"):
        segue.load(tmp_path / "robot")


def rewritten(name: str, content: str):
    """A change to a folder: one of its files has this content."""
    return lambda folder: (folder / name).write_text(content)


def without_frames(folder: Path) -> None:
    for path in folder.glob("data/**/*.parquet"):
        pa.parquet.write_table(pa.parquet.read_table(path).drop_columns(["frame_index"]), path)


INFO, EPISODES = "meta/info.json", "meta/episodes.jsonl"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "robot: there is no such folder; expected a downloaded dataset, with 'meta' and 'data' in it"),
        (lambda folder: shutil.rmtree(folder / "data"), r"robot: there is no data/.*\.parquet in it; copy the folder"),
        (lambda folder: (folder / INFO).unlink(), "robot: there is no meta/info.json in it; copy"),
        (rewritten(INFO, "{"), r"info\.json: cannot be read as LeRobot's info.json \(Expecting property name"),
        (rewritten(INFO, "[]"), r"info\.json: cannot be read .*expected an object with a 'codebase_version'"),
        (rewritten(INFO, '{"codebase_version": "v1.6"}'), "robot: LeRobot's format v1.6; expected v2 or v3"),
        (rewritten(INFO, '{"codebase_version": "v2.1", "features": {"action": 3}}'), "'features' is no object that"),
        (rewritten(INFO, '{"codebase_version": "v2.1", "total_episodes": "2"}'), "'total_episodes' is no whole number"),
        (without_frames, "robot: its files have no 'episode_index' or no 'frame_index'; there is observation.state"),
        (rewritten(EPISODES, "{"), "meta: the list of episodes cannot be read .Expecting property name"),
        (rewritten(EPISODES, '{"episode_index": 0, "length": "x"}'), "meta: the list of episodes cannot be read"),
    ],
    ids=["folder", "data", "no info", "cut", "a list", "version", "features", "total", "frames", "episodes", "lengths"],
)
def test_a_damaged_lerobot_folder_is_named(tmp_path: Path, damage, words: str) -> None:
    uri = lerobot(tmp_path / "robot", "v2.1")
    damage(tmp_path / "robot")
    with pytest.raises(DataError, match=words):
        segue.load(uri)


def test_a_lerobot_action_whose_entries_have_no_names_is_numbered(tmp_path: Path) -> None:
    uri = lerobot(tmp_path / "robot", "v2.1")
    features = {"observation.state": {"names": None}, "action": {"names": {"motors": ["hip", "knee"]}}}
    (tmp_path / "robot" / INFO).write_text(json.dumps({"codebase_version": "v2.1", "features": features}))
    encoding = segue.load(uri).encoding
    assert encoding.observations[0] == "observation.state[0]"
    assert encoding.actions == ("action[hip]", "action[knee]")


def test_neorl_archives_are_read_by_their_names(tmp_path: Path) -> None:
    log = as_dict(MADE)
    names = {
        "obs": "observations",
        "action": "actions",
        "reward": "rewards",
        "next_obs": "next_observations",
        "done": "terminals",
        "truncated": "timeouts",
    }
    np.savez(tmp_path / "a.npz", index=np.array([0, 3]), **{ours: log[name] for ours, name in names.items()})
    assert same_log(segue.load(tmp_path / "a.npz"), segue.load(log))


def test_d3rlpy_marks_ends_and_hdf5_may_name_bounds(tmp_path: Path) -> None:
    log = as_dict(MADE)
    ends = log["terminals"] | log.pop("timeouts")
    bounds = {"action_low": np.full(2, -2.0), "action_high": np.full(2, 2.0)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in {**log, **bounds, "episode_terminals": ends.astype(np.float32)}.items():
            file[name] = array
    dataset = segue.load(f"d4rl:{tmp_path / 'a.h5'}")
    assert dataset.episode_lengths.tolist() == [3, 4]
    assert dataset.actions == pytest.approx(log["actions"] / 2)


@pytest.mark.parametrize("to", ["npz:{}/b.npz", "{}/b.parquet", "csv:{}/b.csv.gz", "minari:made/log-v0"])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_converted_dataset_is_the_same_one_and_nothing_is_overwritten(
    to: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    log = as_dict(MADE) | {"behaviour_log_prob": -np.ones(7), "env_id": "Hopper-v5"}
    if kind == "discrete":
        log |= {"actions": np.arange(7) % 3, "discrete_actions": 5}
    before = segue.load(log)
    uri, lost = convert(before, to.format(tmp_path))
    after = segue.load(uri)
    assert lost is None
    assert after.fingerprint() == before.fingerprint()
    assert (after.spaces, after.env_id) == (before.spaces, before.env_id)
    with pytest.raises(DataError, match="already exists"):
        convert(before, to.format(tmp_path))


@pytest.mark.parametrize("to", ["npz:{}/b.npz", "{}/b.parquet", "csv:{}/b.csv", "minari:made/log-v0"])
@given(lows=st.tuples(LOW, LOW), spans=st.tuples(SPAN, SPAN | st.just(0.0)))
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_actions_are_converted_in_the_unit_of_the_environment(
    to: str, lows: tuple[float, float], spans: tuple[float, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("made")
    low, span = np.array(lows), np.array(spans)
    log = as_dict(MADE) | {"action_low": low, "action_high": low + span, "behaviour_log_prob": np.zeros(7)}
    log["actions"] = (low + span * (log["actions"] + 1) / 2).astype(np.float32)
    before = segue.load(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(place))
        after = segue.load(convert(before, to.format(place))[0])
    written = after.in_units()
    for dataset in (before.in_units(), written):
        np.testing.assert_allclose(dataset.actions, log["actions"], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(dataset.behaviour_log_prob, log["behaviour_log_prob"], atol=1e-5)
    np.testing.assert_allclose(written.action_bounds, [low, low + span], rtol=1e-6, atol=1e-6)
    assert np.array_equal(after.terminals, before.terminals)


def test_a_next_observation_that_is_not_the_next_row_ends_an_episode_and_minari_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    log = as_dict(MADE)
    log["next_observations"][1] = 7
    before = segue.load(log)
    after = segue.load(convert(before, "minari:made/log-v0")[0])
    assert (after.next_observations[1] == 7).all()
    assert after.episode_starts.tolist() == before.episode_starts.tolist()


@pytest.mark.parametrize("name", ["b.npz", "b.parquet"])
def test_what_the_numbers_mean_is_converted_too(name: str, tmp_path: Path) -> None:
    table = pa.table({"obs": ["x", "y"], "action": ["l", "r"], "reward": [0.0, 1.0], "terminal": [0, 1]})
    before = segue.load(table)
    assert segue.load(convert(before, str(tmp_path / name))[0]).encoding == before.encoding


def test_a_mixture_reads_as_it_is_written_and_holds_out_of_every_part() -> None:
    many, few = (as_dict(make_episodes([(2, True)] * count, seed=count)) for count in (20, 5))
    dataset = segue.load(segue.Mixture([many, few], [3, 1]))
    sizes, shares = dataset.part_rows()
    assert sizes.tolist() == [40, 10]
    assert shares.tolist() == [0.75, 0.25]
    learnt, held = dataset.split(0.4, seed=0)
    assert learnt.part_rows()[0].tolist() == [24, 6]
    assert held.part_rows()[0].tolist() == [16, 4]
    uri = uri_of(segue.Mixture(["npz:a@2x.npz", "b.csv"], [0.7, 0.3]))
    assert uri == "npz:a@2x.npz@0.7 + csv:b.csv@0.3"
    assert uri_of(uri) == uri


def test_a_mixture_that_cannot_be_one_line_has_none_or_says_why() -> None:
    log = as_dict(MADE)
    assert uri_of(segue.Mixture([log, "npz:a.npz"])) is None
    assert uri_of(["npz:a.npz", "b.csv"]) == "npz:a.npz + csv:b.csv"
    assert uri_of("npz:a@home.npz + b.csv") == "npz:a@home.npz + csv:b.csv", "not every @ is followed by a weight"
    with pytest.raises(
        DataError, match=r"separates the parts .* list the parts of a mixture within the mixture one by one"
    ):
        uri_of(segue.Mixture(["npz:a.npz + npz:b.npz", "npz:c.npz"]))


@pytest.mark.parametrize("name", ["behaviour_log_prob", "cost", "allowed_actions"])
def test_what_a_part_of_a_mixture_lacks_is_left_out_and_noted(name: str, tmp_path: Path) -> None:
    bare = as_dict(MADE) | {"actions": np.arange(7) % 3, "discrete_actions": 3}
    own = {"behaviour_log_prob": -np.ones(7), "cost": np.ones(7), "allowed_actions": np.ones((7, 3))}
    np.savez(tmp_path / "bare.npz", **bare)
    joined = segue.load(segue.Mixture([bare | {name: own[name]}, f"npz:{tmp_path}/bare.npz"]))
    assert getattr(joined, name) is None
    assert any(f"are left out: npz:{tmp_path}/bare.npz has none" in note for note in joined.notes)
    assert len(getattr(segue.load(segue.Mixture([bare | {name: own[name]}] * 2)), name)) == 14


def test_without_weights_a_mixture_is_one_dataset() -> None:
    parts = [as_dict([episode]) for episode in MADE]
    dataset = segue.load(segue.Mixture(parts))
    assert same_log(dataset, segue.load(as_dict(MADE)))
    assert dataset.part_rows() is None


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        (lambda a, b: segue.Mixture([a, b | {"actions": b["actions"][:, :1]}]), "different spaces: .*2.* and .*1"),
        (lambda a, b: segue.Mixture([a | {"env_id": "A-v0"}, b | {"env_id": "B-v0"}]), "environments: A-v0 and B"),
        (lambda a, b: segue.Mixture([a, b], [1.0]), "2 datasets and 1 weights"),
        (lambda a, b: segue.Mixture([a, b], [1.0, 0.0]), "expected numbers above 0"),
        (lambda a, b: "npz:a@0.7 + npz:b", "some parts have a weight"),
        (lambda a, b: [], "a mixture has no parts; expected one dataset or more"),
        (lambda a, b: segue.Mixture([a, b | {"action_low": [-1, -1], "action_high": [1, 1]}]), "names the bounds of"),
        (lambda a, b: "robots/pusht", "If it is a LeRobot dataset, download its folder and write lerobot:FOLDER"),
        (lambda a, b: "d4rl.pkl", "Segue does not unpickle; save its arrays by numpy.savez and write npz:FILE"),
        (lambda a, b: [a, b], "concatenate the trajectories"),
        (lambda a, b: 5, "given as a int"),
        (lambda a, b: {1: a}, "missing 'observations'"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_explained_without_printing_it(mixture, words) -> None:
    log = as_dict(MADE)
    with pytest.raises(DataError, match=words) as caught:
        segue.load(mixture(log, log))
    assert len(str(caught.value)) < 600


def test_a_dataset_is_returned_as_it_is() -> None:
    dataset = segue.load(as_dict(MADE))
    assert segue.load(dataset) is dataset


def test_a_mixture_has_the_whole_environment_of_the_part_that_names_one() -> None:
    log = as_dict(MADE)
    named = log | {"env_id": "A-v0", "env_spec": json.dumps({"name": "A-v0", "kwargs": {"g": 3.0}})}
    for parts in ([log, named], [named, log]):
        environment = segue.load(segue.Mixture(parts)).environment
        assert environment is not None
        assert (environment.name, dict(environment.kwargs)) == ("A-v0", {"g": 3.0})
