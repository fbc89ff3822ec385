"""WHAT is split: parts, graphs, configurations by name, cutting any module, networks."""

from .cutting import cut_module
from .joined import Joined
from .merge import Concat, Mean, Sum
from .parts import Cut, Loss, Party, Role, Segment, Share, TensorSpec
from .split_graph import SplitGraph
from .topologies import extended_vanilla, multi_hop, multi_task, u_shaped, vanilla, vertical

__all__ = [
    "Concat", "Cut", "Joined", "Loss", "Mean", "Party", "Role", "Segment", "Share", "SplitGraph", "Sum", "TensorSpec",
    "cut_module", "extended_vanilla", "multi_hop", "multi_task", "u_shaped", "vanilla", "vertical",
]  # fmt: skip
