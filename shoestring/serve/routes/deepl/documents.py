"""Routes of DeepL's API for documents: upload, state, and the translated file."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import Schema, whole
from shoestring.serve.routes.deepl.bodies import Fields, File, TheDocuments, read_body, text_field
from shoestring.serve.routes.deepl.schema import DEEPL_ERRORS, body_of
from shoestring.serve.routes.parts import TheCaller
from shoestring.serve.translate.formats import MEDIA_TYPES
from shoestring.serve.translate.request import DocumentFields

router = APIRouter(prefix="/v2/document", tags=["DeepL"], responses=DEEPL_ERRORS)

KINDS = sorted({kind.partition(";")[0] for kind in MEDIA_TYPES.values()})
DocumentId = Annotated[str, Path(max_length=64)]


class DocumentHandle(Schema):
    document_id: str
    document_key: str


class DocumentState(Schema):
    document_id: str
    status: str
    seconds_remaining: int | None = None
    share: float | None = None
    """Part of the text that is translated; not in DeepL's API."""
    billed_characters: int | None = None
    error_message: str | None = None
    message: str | None = None


class DocumentKey(BaseModel):
    document_key: str


@router.post("", responses=whole(DocumentHandle), openapi_extra=body_of(DocumentFields, is_file=True))
@audience(Audience.KEY)
async def upload_document(fields: Fields, caller: TheCaller, documents: TheDocuments) -> dict[str, str]:
    """Begin to translate a document."""
    file = fields.get("file")
    if not isinstance(file, File):
        raise RequestError("invalid", "Missing or invalid argument: file", field="file")
    others = {name: value for name, value in fields.items() if name != "file"}
    job = await documents.upload(caller, read_body(DocumentFields, others), file.name, file.data)
    return {"document_id": job.id, "document_key": job.key}


@router.post("/{document_id}", responses=whole(DocumentState), openapi_extra=body_of(DocumentKey))
@audience(Audience.KEY)
async def show_document(
    document_id: DocumentId, fields: Fields, caller: TheCaller, documents: TheDocuments
) -> dict[str, Any]:
    """Show how far a document is."""
    return documents.fields(documents.find(caller, document_id, text_field(fields, "document_key")))


@router.post(
    "/{document_id}/result",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in KINDS}, "description": "The document."}},
    openapi_extra=body_of(DocumentKey),
)
@audience(Audience.KEY)
async def fetch_document(
    document_id: DocumentId, fields: Fields, caller: TheCaller, documents: TheDocuments
) -> Response:
    """Give the translated document, once."""
    job = documents.find(caller, document_id, text_field(fields, "document_key"))
    name = quote(job.name.encode("utf-8", "replace"), safe="")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return Response(documents.take(job), media_type=MEDIA_TYPES[job.form], headers=headers)
