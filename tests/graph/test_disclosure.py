from __future__ import annotations

import pytest
from sample_graphs import ALL, alone, departments, hybrid, tasks, u_shaped, vanilla

from cutlayer import RoundRobin, Study, optim
from cutlayer.errors import GraphError


def section(text: str, title: str) -> str:
    """Return what stands below ``title``, with line breaks and indentation taken out."""
    body = text.split(f"\n{title}", 1)[1].split("\n\n", 1)[0].partition("\n")[2]
    return " ".join(body.split())


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_one_page_for_everyone(make):
    graph = make()
    for party in graph.parties:
        lines = graph.disclosure(party.name, 64).splitlines()
        assert lines[0] == f"DISCLOSURE STATEMENT OF {party.name}"
        assert len(lines) <= 60
        assert max(map(len, lines)) <= 110


def test_a_client_that_shares_its_labels_is_told_loudly():
    text = vanilla().disclosure("client-1", 32)
    leaves = section(text, "WHAT LEAVES")
    assert leaves.startswith(
        "- !! LABELS ARE OPENLY SHARED !! The field y, as it is, to server: int64[B], "
        "256 bytes a batch (8 bytes a row)."
    )
    assert "y int64" not in section(text, "WHAT NEVER LEAVES")
    assert "!! LABELS ARE OPENLY SHARED !!" in section(vanilla().disclosure("server", 32), "WHAT COMES IN")


def test_sizes_are_per_row_and_batch():
    leaves = section(vanilla().disclosure("client-0", 32), "WHAT LEAVES")
    assert (
        "Activations over cut head->server (out of segment head) to server: float32[B, 4, 4, 4], "
        "8,192 bytes a batch (256 bytes a row)" in leaves
    )


def test_a_u_keeps_records_labels_and_predictions():
    text = u_shaped().disclosure("client-2", 8)
    never, leaves = section(text, "WHAT NEVER LEAVES"), section(text, "WHAT LEAVES")
    assert "Its raw records: x float32[B, 20]." in never
    assert "Its labels: y int64[B]." in never
    assert "tail (predictions)" in never
    assert "ids of its records" in never
    assert "Gradients over cut body<-client (of the loss, by the activations of body) to server" in leaves
    assert "A few numbers for each epoch and split" in leaves
    assert "SHARED" not in text


def test_state_passes_only_between_parties_of_one_role():
    text = u_shaped().disclosure("client-0", 8)
    assert "The state of head, tail, to the others of the role client" in section(text, "WHAT LEAVES")
    assert "370 parameters, 1,480 bytes" in section(text, "WHAT LEAVES")
    assert "To any party outside the role client: the weights" in section(text, "WHAT NEVER LEAVES")
    server = u_shaped().disclosure("server", 8)
    assert "state of" not in section(server, "WHAT LEAVES")
    assert "(272 parameters): no other party ever has them" in section(server, "WHAT NEVER LEAVES")
    alone_at_its_place = u_shaped(1).disclosure("client-0", 8)
    assert "sealed" not in alone_at_its_place


def test_only_label_holders_send_numbers():
    text = departments().disclosure("laboratory", 8)
    assert "A few numbers" not in section(text, "WHAT LEAVES")
    assert "from server" in section(text, "WHAT COMES IN").split("A few numbers")[1]
    assert "A few numbers" in section(tasks().disclosure("surgery", 8), "WHAT LEAVES")
    heard = section(tasks().disclosure("surgery", 8), "WHAT COMES IN").split("A few numbers")[1]
    assert "from oncology" in heard


def test_partners_are_those_of_the_turn():
    text = hybrid().disclosure("hub", 8)
    assert "to the one of role ward whose turn it is (2 parties: ward-a, ward-b)" in section(
        text, "WHAT LEAVES"
    )
    assert "from lab (role laboratory)" in section(text, "WHAT COMES IN")
    ward = hybrid().disclosure("ward-b", 8)
    assert "(features, residual of segment encoder) to hub" in section(ward, "WHAT LEAVES")


def test_nothing_leaves_who_is_alone():
    text = alone().disclosure("clinic", 8)
    assert section(text, "WHAT LEAVES") == "- Nothing: the study has no other party."
    assert section(text, "WHAT COMES IN") == "- Nothing."


def test_every_cut_is_on_both_pages():
    for make in ALL.values():
        graph = make()
        for cut in graph.cuts:
            sender = graph.disclosure(graph.roles[cut.source].parties[0])
            receiver = graph.disclosure(graph.roles[cut.target].parties[0])
            name = cut.producer if cut.kind == "label" else cut.name
            assert name in section(sender, "WHAT LEAVES") and name in section(receiver, "WHAT COMES IN")
            if cut.has_gradient:
                assert cut.backward_name in section(sender, "WHAT COMES IN")
                assert cut.backward_name in section(receiver, "WHAT LEAVES")


def test_unknown_shapes_are_said_to_be_unknown():
    leaves = section(ALL["odd_names"]().disclosure("clinic"), "WHAT LEAVES")
    assert "to server: shape not known before the data is there. When" in leaves


def test_it_says_what_it_cannot_say():
    limits = section(vanilla().disclosure("client-0"), "WHAT THIS STATEMENT CANNOT SAY")
    assert (
        "can tell something about both" in limits and "Nothing in this statement measures how much" in limits
    )


def test_bad_questions():
    with pytest.raises(GraphError, match="did you mean 'client-1'"):
        vanilla().disclosure("client1")
    with pytest.raises(GraphError, match="at least one row; got batch_size=0"):
        vanilla().disclosure("client-1", 0)


def test_who_passes_a_hand_over_on_is_on_its_page_and_on_the_clients():
    graph = u_shaped()
    server, client = graph.disclosure("server", 8, "server"), graph.disclosure("client-1", 8, "server")
    for title, way in (("WHAT LEAVES", "to the next"), ("WHAT COMES IN", "from the last")):
        passed = section(server, title)
        assert (
            f"with every hand-over: the state of head, tail, {way} of the role client, at the end of a turn: "
            "weights and buffers (370 parameters, 1,480 bytes)" in passed
        )
        assert "It is not opened here" in passed and "in a simulation there are none" in passed
        assert "It goes through server, which passes it on unopened" in section(client, title)
    assert "other than sealed, through server (the seal of a simulation hides nothing)" in section(
        client, "WHAT NEVER LEAVES"
    )


def test_a_straight_hand_over_passes_nobody():
    graph = u_shaped()
    assert graph.disclosure("server", 8, "") == graph.disclosure("server", 8)
    leaves = section(graph.disclosure("client-1", 8, ""), "WHAT LEAVES")
    assert "with Adam two). It goes straight there." in leaves and "seal" not in leaves
    with pytest.raises(GraphError, match="did you mean 'server'"):
        graph.disclosure("client-1", 8, "sever")


def test_the_length_of_an_update_tells_something_and_the_page_says_so():
    schedule = RoundRobin(handover="server", updates=True)
    study = Study(graph=u_shaped(), optimizer=optim.SGD(lr=0.1), schedule=schedule, batch_size=4)
    whole = Study(
        graph=u_shaped(), optimizer=optim.SGD(lr=0.1), batch_size=4, schedule=RoundRobin(handover="server")
    )
    for party in ("client-0", "server"):
        assert "the length of what is sealed tells roughly how far" in section(
            study.disclosure(party), "WHAT LEAVES"
        )
        assert "the length of what is sealed" not in whole.disclosure(party)


def test_what_was_tried_for_raw_records_is_said():
    never = section(u_shaped().disclosure("client-0"), "WHAT NEVER LEAVES")
    assert "No cut carries a column of them as it is, or only scaled, shifted or negated" in never
    assert "No activation that crosses is made from them" in never
    unseen = section(ALL["odd_names"]().disclosure("clinic"), "WHAT NEVER LEAVES")
    assert "whether segments pass on columns of them was not tried" in unseen


@pytest.mark.parametrize(
    ("handover", "told"), [("peer", "It goes straight there."), ("server", "through server")]
)
def test_a_study_knows_the_way_of_its_hand_overs(handover, told):
    schedule = RoundRobin(handover=handover)
    study = Study(graph=u_shaped(), optimizer=optim.SGD(lr=0.1), schedule=schedule, batch_size=4)
    assert told in section(study.disclosure("client-0"), "WHAT LEAVES")
    assert ("hand-over" in study.disclosure("server")) == (handover == "server")


def test_between_organisations_it_says_how_frames_travel():
    graph = u_shaped()
    page = graph.disclosure("client-0", 32, "", "server")
    travels = section(page, "HOW IT TRAVELS")
    assert "Every connection goes to server, which client-0 dials, over TLS" in travels
    assert "sealed from end to end" in travels and "one hash of all their ids" in travels
    assert "sealed so that only the next one can open it" in section(page, "WHAT LEAVES client-0")
    assert "simulation" not in page
    at_host = graph.disclosure("server", 32, "", "server")
    assert "their contents are not" in section(at_host, "HOW IT TRAVELS")
    assert "HOW IT TRAVELS" not in graph.disclosure("client-0", 32, "")
    assert len(page.splitlines()) <= 70
    with pytest.raises(GraphError, match="nobody"):
        graph.disclosure("client-0", 32, "", "nobody")
