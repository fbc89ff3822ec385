"""Draw the pictures of the docs: ``python docs/img/draw.py`` writes them beside this file."""

from pathlib import Path

import cutlayer as cl


def drawings() -> dict[str, str]:
    """Return the SVG drawings by name."""
    clinics = cl.data.digits().split_rows(5)
    model = cl.networks.mlp((64, 64, 32, 10))
    return {"u_shaped": cl.u_shaped(model, ("activation1", "activation2"), clients=clinics).svg()}


if __name__ == "__main__":
    for name, svg in drawings().items():
        Path(__file__).with_name(f"{name}.svg").write_text(svg)
