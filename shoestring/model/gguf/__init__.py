"""GGUF in and out: the door to exporting a model for llama.cpp and to importing one from there."""

from shoestring.model.gguf.exporter import WeightType, export_gguf
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.importer import import_gguf
from shoestring.model.gguf.metadata import read_config

__all__ = ["GGUFFile", "WeightType", "export_gguf", "import_gguf", "read_config"]
