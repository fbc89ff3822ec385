"""After training: predicting together, halves on disk, and the joined network only with everyone's consent."""

import copy

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.data import Deal
from cutlayer.errors import ConsentError, DataError, FrameError, StudyError
from cutlayer.graph.joined import Joined
from cutlayer.metering.events import Computed, Traffic

NET = cl.networks.mlp((6, 8, 7, 3), dropout=0.2)
X = torch.randn(11, 6, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def vanilla():
    people = pooled()[0].split_rows(3)
    return study_of(cl.vanilla(NET, "linear2", clients=people)).simulate(people)


@pytest.fixture(scope="module")
def vertical():
    people = pooled()[0].split({"clinic": slice(0, 3), "lab": slice(3, 6)}, Deal(n=2), labels_split=True)
    bottoms = {"clinic": nn.Linear(3, 4), "lab": nn.Linear(3, 4)}
    return study_of(cl.vertical(bottoms, nn.Linear(8, 3), parties=people)).simulate(people)


def joined(run):
    """The run's network on one machine, in evaluation mode."""
    network = copy.deepcopy(Joined(run.graph)).eval()
    for name, segment in network.segments.items():
        segment.load_state_dict(run.weights()[name])
    return network


def uncut(run):
    """The model as it was before it was cut, with the weights after training."""
    model = copy.deepcopy(NET).eval()
    segments = run.graph.segments
    origin = {n: segments[s].origin[n] for s, weights in run.weights().items() for n in weights}
    model.load_state_dict({origin[n]: t for weights in run.weights().values() for n, t in weights.items()})
    return model


# Predicting


def test_predictions_are_the_uncut_networks(vanilla):
    with torch.no_grad():
        assert torch.equal(vanilla.predict(X), uncut(vanilla)(X))


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_predictions_come_in_the_order_of_the_rows(vanilla, batch_size):
    with torch.no_grad():
        expected = torch.cat([uncut(vanilla)(rows) for rows in X.split(batch_size)])
    made = vanilla.predict(X, batch_size=batch_size)
    assert made.shape == (11, 3) and torch.equal(made, expected)


def test_predictions_of_columns_need_the_rows_of_every_role(vertical):
    rows = {"clinic": X[:, :3], "lab": X[:, 3:]}
    with torch.no_grad():
        values = joined(vertical)({role: {"x": part} for role, part in rows.items()})
    made = vertical.predict(rows)
    assert torch.equal(made, list(values.values())[-1])
    assert torch.equal(vertical.predict({role: {"x": part} for role, part in rows.items()}), made)
    with pytest.raises(
        DataError, match="predict needs rows of every role with data; got clinic; expected clinic, lab"
    ):
        vertical.predict({"clinic": X[:, :3]})
    with pytest.raises(DataError, match="the roles' rows differ in number"):
        vertical.predict(rows | {"lab": X[:5, 3:]})


def test_several_tasks_predict_by_the_name_of_their_loss():
    people = pooled()[0].split_columns({"clinic": slice(0, 3), "lab": slice(3, 6)}, labels="kind")
    parties = {p.name: p.splits for p in people.parties}
    people = cl.data.Holdings.of(parties | {"sign": parties["kind"]})
    bottoms = {"clinic": nn.Linear(3, 4), "lab": nn.Linear(3, 4)}
    graph = cl.multi_task(bottoms, {"kind": nn.Linear(8, 3), "sign": nn.Linear(8, 4)}, parties=people)
    made = study_of(graph).simulate(people).predict({"clinic": X[:, :3], "lab": X[:, 3:]})
    assert {name: tuple(t.shape) for name, t in made.items()} == {"loss-kind": (11, 3), "loss-sign": (11, 4)}


def test_arrays_of_other_precision_are_brought_to_the_fields(vanilla):
    expected = vanilla.predict(X)
    assert torch.equal(vanilla.predict(X.numpy().astype(np.float64)), expected)
    assert torch.equal(vanilla.predict(X.tolist()), expected)


def test_rows_unlike_those_trained_on_are_refused(vanilla):
    for rows in (X[:, :5], X[0], X.long(), torch.tensor(1.0)):
        with pytest.raises(
            DataError, match="the rows of field 'x' of role 'client' are not like those trained on; got"
        ):
            vanilla.predict(rows)
    with pytest.raises(DataError, match="predict lacks rows of field 'x' of role 'client'; got image"):
        vanilla.predict({"image": X})
    with pytest.raises(DataError, match="empty"):
        vanilla.predict(X[:0])


def test_predicting_changes_nothing_and_is_noted_as_prediction(vanilla):
    weights, events = vanilla.weights(), len(vanilla.events)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    vanilla.predict(X)
    assert torch.equal(torch.get_rng_state(), state)
    noted = vanilla.events[events:]
    assert {(type(e), e.phase) for e in noted} == {(Traffic, "prediction"), (Computed, "prediction")}
    assert [(e.cut, e.frames) for e in noted if isinstance(e, Traffic)] == [("head->server", 1)]
    assert all(torch.equal(t, weights[s][n]) for s, w in vanilla.weights().items() for n, t in w.items())


def test_nobody_needs_labels_to_predict():
    people = pooled()[0].split_rows(2)
    graph = cl.u_shaped(NET, ("linear1", "linear2"), clients=people)
    run = study_of(graph).simulate(people)
    with torch.no_grad():
        assert torch.equal(run.predict(X), uncut(run)(X))


def test_a_role_that_only_holds_labels_may_have_many_parties():
    """A registry for each client shares the labels with the server."""
    source = pooled()[0]
    people = source.split({"client": slice(0, 6)}, Deal(n=3), labels="registry", labels_split=True)
    client, registry = ({r: people.fields(r)} for r in ("client", "registry"))
    parts = cl.cut_module(NET, "linear2", X)
    spec = {
        f: cl.TensorSpec(tuple(s.shape), s.dtype)
        for fields in (client, registry)
        for r in fields.values()
        for f, s in r.items()
    }
    graph = cl.SplitGraph(
        roles=[
            cl.Role("client", people.roles["client"], {"x": spec["x"]}),
            cl.Role("registry", people.roles["registry"], {"y": spec["y"]}),
            cl.Role("server", ("server",)),
        ],
        segments=[
            cl.Segment("head", "client", parts.pieces[0].module, ("x",)),
            cl.Segment("top", "server", parts.pieces[1].module, ("head",)),
        ],
        losses=[cl.Loss(role="server", prediction="top")],
        shares=[cl.Share("y", "registry", "server")],
    )
    study = study_of(graph)
    run = study.simulate(people)
    assert run.equals(study.central(people))
    assert run.predict(X).shape == (11, 3)


# Halves


def test_each_party_saves_its_own_half(vanilla, tmp_path):
    vanilla.save(tmp_path)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    assert files == ["client-2/head.safetensors", "server/top.safetensors"]
    weights = vanilla.weights()
    for file in files:
        party, segment = file.removesuffix(".safetensors").split("/")
        loaded = load_file(tmp_path / file)
        assert loaded.keys() == weights[segment].keys()
        assert all(torch.equal(tensor, weights[segment][name]) for name, tensor in loaded.items())
        with safe_open(tmp_path / file, "pt") as opened:
            known = opened.metadata()
        assert (known["party"], known["segment"], known["graph"]) == (
            party,
            segment,
            vanilla.graph.digest,
        )


def test_halves_are_taken_up_again(vanilla, tmp_path):
    vanilla.save(tmp_path)
    people = pooled()[0].split_rows(3)
    other = study_of(vanilla.graph, seed=9).simulate(people)
    assert not other.equals(vanilla)
    other.load(tmp_path)
    assert other.equals(vanilla) and torch.equal(other.predict(X), vanilla.predict(X))


def test_halves_of_another_graph_or_damaged_ones_are_refused(vanilla, tmp_path):
    people = pooled()[0].split_rows(3)
    other = study_of(cl.vanilla(NET, "linear1", clients=people), epochs=1).simulate(people)
    other.save(tmp_path / "other")
    with pytest.raises(
        StudyError, match=r"client-2: .*head.safetensors belongs to another graph; got digest"
    ):
        vanilla.load(tmp_path / "other")
    with pytest.raises(StudyError, match=r"client-0: cannot read .*head.safetensors: .*; check the folder"):
        vanilla.load(tmp_path / "nothing")
    vanilla.save(tmp_path / "own")
    file = tmp_path / "own" / "server" / "top.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(StudyError, match=r"server: cannot read .*top.safetensors"):
        vanilla.load(tmp_path / "own")
    file.write_bytes(whole)
    with safe_open(file, "pt") as opened:
        known = opened.metadata()
    save_file({"linear3.weight": torch.zeros(2, 2)}, file, metadata=known)
    with pytest.raises(FrameError, match=r"the state of segment 'top' does not fit at 'linear3.weight'"):
        vanilla.load(tmp_path / "own")


# The joined network


def test_the_export_needs_everyones_consent(vanilla, tmp_path):
    everyone = [p.name for p in vanilla.graph.parties]
    assert len(everyone) == 4
    for missing in everyone:
        rest = [name for name in everyone if name != missing]
        with pytest.raises(
            ConsentError, match=f"got no consent of {missing}; ask them, or save each party's own"
        ):
            vanilla.export(tmp_path / "net.safetensors", consent=rest)
    assert not list(tmp_path.iterdir())


def test_the_export_goes_into_the_original_model_by_its_own_names(vanilla, tmp_path):
    everyone = [p.name for p in vanilla.graph.parties]
    file = vanilla.export(tmp_path / "made" / "net.safetensors", consent=everyone)
    model = copy.deepcopy(NET).eval()
    model.load_state_dict(load_file(file), strict=True)
    with torch.no_grad():
        assert torch.equal(model(X), vanilla.predict(X))


@pytest.mark.parametrize("cut", ["layer1.0", "layer2.0.bn1"])
def test_the_export_of_a_residual_network_has_the_originals_names(cut, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            block = cl.networks.ResidualBlock
            self.conv = nn.Conv2d(1, 4, 3)
            self.layer1 = nn.Sequential(block(4, 4, 1, deep=False))
            self.layer2 = nn.Sequential(block(4, 6, 2, deep=False))
            self.pool, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.flatten(self.pool(self.layer2(self.layer1(self.conv(x))))))

    people = pooled(8, (1, 8, 8), test=0)[0].split_rows(2)
    model = Net()
    run = study_of(cl.vanilla(model, cut, clients=people), batch_size=4, epochs=1).simulate(people)
    file = run.export(tmp_path / "net.safetensors", consent=[p.name for p in run.graph.parties])
    model.load_state_dict(load_file(file), strict=True)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), run.predict(x))


def test_segments_of_ones_own_are_exported_by_segment(vertical, tmp_path):
    file = vertical.export(tmp_path / "net.safetensors", consent=[p.name for p in vertical.graph.parties])
    assert set(load_file(file)) == {
        "clinic.weight",
        "clinic.bias",
        "lab.weight",
        "lab.bias",
        "top.weight",
        "top.bias",
    }


def test_a_file_that_cannot_be_written_leaves_what_was_there(vanilla, tmp_path):
    everyone = [p.name for p in vanilla.graph.parties]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="cannot write"):
        vanilla.export(tmp_path / "file" / "net.safetensors", consent=everyone)
    with pytest.raises(StudyError, match="cannot write"):
        vanilla.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_saved_network_predicts_without_being_trained_again(tmp_path):
    people = pooled()[0].split_rows(3)
    study = study_of(cl.vanilla(NET, "linear2", clients=people), epochs=1)
    run = study.simulate(people)
    expected = run.predict(X)
    run.save(tmp_path)
    assert torch.equal(study.load(tmp_path).predict(X), expected)
    with pytest.raises(StudyError, match="check the folder given to save"):
        study.load(tmp_path / "nowhere")
