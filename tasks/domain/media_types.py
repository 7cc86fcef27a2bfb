"""Media types of files by the extension of their name, the same on every machine.

The standard library's table is filled from files of the machine, which slim images do not have, and differs between
versions of Python: a model would get different requests from different machines. The types are those registered at
IANA (https://www.iana.org/assignments/media-types), or the usual ones for unregistered formats.
"""

from __future__ import annotations

UNKNOWN = "application/octet-stream"
_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS = {
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jp2": "jp2 jpg2",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/tiff": "tif tiff",
    "image/vnd.microsoft.icon": "ico",
    "image/webp": "webp",
    "application/dicom": "dcm",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/midi": "mid midi",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg oga opus",
    "audio/x-wav": "wav",
    "video/3gpp": "3gp",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpg mpeg",
    "video/ogg": "ogv",
    "video/quicktime": "mov qt",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "text/css": "css",
    "text/csv": "csv",
    "text/html": "html htm",
    "text/markdown": "md markdown",
    "text/plain": "txt log text",
    "text/tab-separated-values": "tsv",
    "text/vtt": "vtt",
    "text/xml": "xml",
    "message/rfc822": "eml",
    "application/epub+zip": "epub",
    "application/geo+json": "geojson",
    "application/gzip": "gz",
    "application/json": "json",
    "application/jsonl": "jsonl ndjson",
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/postscript": "ps eps",
    "application/rtf": "rtf",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.text": "odt",
    f"{_OFFICE}.presentationml.presentation": "pptx",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/x-bzip2": "bz2",
    "application/x-hdf5": "h5 hdf5",
    "application/x-tar": "tar",
    "application/yaml": "yaml yml",
    "application/zip": "zip",
    "application/zstd": "zst",
    "model/gltf-binary": "glb",
    "model/obj": "obj",
    "model/stl": "stl",
}
_TYPES = {ending: kind for kind, endings in _KINDS.items() for ending in endings.split()}


def media_type(ending: str) -> str:
    """The type of files with this extension (lower case, without the dot)."""
    return _TYPES.get(ending, UNKNOWN)
