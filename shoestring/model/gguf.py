"""GGUF in and out: the door to exporting a model for llama.cpp and to importing one from there."""

from shoestring.model.gguf_export import WeightType, export_gguf
from shoestring.model.gguf_file import GGUFFile
from shoestring.model.gguf_import import import_gguf
from shoestring.model.gguf_metadata import read_config

__all__ = ["GGUFFile", "WeightType", "export_gguf", "import_gguf", "read_config"]
