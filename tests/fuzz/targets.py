"""The table of what strangers publish and nodes read; a new format joins by a row."""

from fuzz.artifact_targets import ARTIFACTS, CHUNKS, COMMITS, METADATA
from fuzz.document_targets import DOCUMENTS, RECORDS
from fuzz.publication_targets import CHECKPOINTS, UPDATES

TARGETS = [ARTIFACTS, METADATA, CHUNKS, COMMITS, RECORDS, UPDATES, CHECKPOINTS, DOCUMENTS]
