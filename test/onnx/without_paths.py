"""Takes the folders of the machine out of the traces that PyTorch's exporter writes into files: `File "/home/me/make.py"` becomes `File "make.py"`.

Called by the scripts that make fixtures, when all are written:  without_paths(FOLDER)
"""
import pathlib
import re

import onnx

FOLDERS = re.compile(r"(/[\w.\-+]+)+/([\w.\-]+\.py)")


def holders(graph):
    """A graph or function, its nodes, and those of their subgraphs: all that hold metadata."""
    yield graph
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from holders(inner)


def without_paths(folder):
    for path in pathlib.Path(folder).glob("**/*.onnx"):
        model = onnx.load(path, load_external_data=False)
        before = model.SerializeToString()
        for part in [model, *(held for graph in [model.graph, *model.functions] for held in holders(graph))]:
            for entry in part.metadata_props:
                entry.value = FOLDERS.sub(r"\2", entry.value)
        if model.SerializeToString() != before:
            onnx.save(model, path)
