"""A model behind FastAPI: a picture with form fields beside it, or as the bare body."""

from typing import Annotated

from fastapi import FastAPI, Form, Request, UploadFile

app = FastAPI()


@app.get("/health")
def health() -> dict[str, str]:
    """Healthy as soon as it answers."""
    return {"status": "ok"}


@app.post("/brightness")
async def brightness(
    image: UploadFile, threshold: Annotated[float, Form()], label: Annotated[str, Form()]
) -> dict[str, object]:
    """Mean of the file's bytes, from 0 to 1."""
    data = await image.read()
    mean = sum(data) / (255 * max(len(data), 1))
    return {"file": image.filename, label: mean >= threshold}


@app.post("/size")
async def size(request: Request) -> dict[str, int]:
    """Length of the body."""
    return {"bytes": len(await request.body())}
