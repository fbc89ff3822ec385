"""A schedule that breaks off, for tests of what goes on afterwards."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest


class Broken(Exception):
    """Stands for the power cut."""


def break_off(study, people, out, at_epoch=2):
    """Simulate ``study`` in the folder ``out`` until the given epoch, from 2 on, would begin."""
    kind = type(study.schedule)

    class Breaking(kind):
        def epoch(self, graph, calendar, epoch):
            if epoch == at_epoch:
                raise Broken
            yield from super().epoch(graph, calendar, epoch)

    breaking = Breaking(**{one.name: getattr(study.schedule, one.name) for one in fields(kind) if one.init})
    with pytest.raises(Broken):
        replace(study, schedule=breaking).simulate(people, out=out)
