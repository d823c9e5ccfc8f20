"""Routes of training runs: list, watch, stop and resume. They are for whoever runs the service."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.page.tagged import tagged
from shoestring.serve.training.runs import Runs
from shoestring.serve.training.views import CurvesView, RunList, RunView, curves_view, run_list, run_view

ERRORS = {409: "Not now; the message says why."}
router = APIRouter(prefix="/runs", tags=["training"], responses=errors(OpenAIError, ERRORS))


async def runs_of(request: Request) -> Runs:
    """The runs of the service. Raises RequestError when it shows none."""
    runs: Runs | None = request.app.state.runs
    if runs is None:
        raise RequestError("not_found", "this service shows no training runs")
    return runs


TheRuns = Annotated[Runs, Depends(runs_of)]
TheName = Annotated[str, Path(max_length=255)]


@router.get("", response_class=Response, responses=whole(RunList))
@audience(Audience.ADMIN)
async def list_runs(request: Request, runs: TheRuns) -> Response:
    """List the runs, the last changed first."""
    return tagged(request, await asyncio.to_thread(run_list, runs))


@router.get("/{name}", response_class=Response, responses=whole(RunView))
@audience(Audience.ADMIN)
async def read_run(name: TheName, request: Request, runs: TheRuns) -> Response:
    """Show a run: its stages, figures and receipts."""
    return tagged(request, await asyncio.to_thread(run_view, runs, name))


@router.get("/{name}/curves", response_class=Response, responses=whole(CurvesView))
@audience(Audience.ADMIN)
async def read_curves(
    name: TheName, request: Request, runs: TheRuns, stage: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show the curves of a stage and samples of its answers."""
    return tagged(request, await asyncio.to_thread(curves_view, runs, name, stage))


@router.post("/{name}/stop", status_code=204)
@audience(Audience.ADMIN)
async def stop_run(name: TheName, runs: TheRuns) -> None:
    """Ask a training to save its state and end."""
    runs.control.stop(runs.folder.run(name))


@router.post("/{name}/resume", status_code=204)
@audience(Audience.ADMIN)
async def resume_run(name: TheName, runs: TheRuns) -> None:
    """Start a training again where it stopped, in a process of its own."""
    runs.control.resume(runs.folder.run(name))
