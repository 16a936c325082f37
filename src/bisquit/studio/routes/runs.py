"""Training runs, live: ask again for what is new."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from bisquit.studio.answers import PNG_TYPE
from bisquit.studio.limits import LONGEST_NAME
from bisquit.studio.refusals import Refusal
from bisquit.studio.routes import PNG, USUAL, problems
from bisquit.studio.runs import Run
from bisquit.studio.schemas import Point, RunAnswer, RunsAnswer, RunSummary
from bisquit.studio.studio import InStudio, Studio, aside

Named = Annotated[str, Query(max_length=LONGEST_NAME, description="A run's name, as the list has it.")]
Tag = Annotated[str, Query(max_length=LONGEST_NAME, description="Which of its pictures, such as samples.")]

router = APIRouter(prefix="/runs", tags=["runs"], responses={**USUAL})


@router.get("")
async def runs(studio: InStudio) -> RunsAnswer:
    """List the runs below the folder that the studio was started with, the latest first."""
    return RunsAnswer(runs=[_summary(run) for run in await aside(studio.runs.all)])


@router.get("/curves", responses={**problems(404)})
async def curves(name: Named, studio: InStudio) -> RunAnswer:
    """Return a run's settings, its curves so far, and the names of the pictures that it drew."""
    run = await _run(studio, name)
    points = {
        tag: [Point(step=step, time=at, value=value) for step, at, value in curve]
        for tag, curve in (await aside(studio.runs.curves, run)).items()
    }
    pictures = await aside(studio.runs.picture_tags, run)
    return RunAnswer(**_summary(run).model_dump(), recipe=run.record.recipe, curves=points, pictures=pictures)


@router.get("/picture", response_class=Response, responses={**PNG, **problems(404)})
async def picture(name: Named, tag: Tag, studio: InStudio) -> Response:
    """Return the latest picture that a run drew."""
    run = await _run(studio, name)
    try:
        return Response(await aside(studio.runs.picture, run, tag), media_type=PNG_TYPE)
    except KeyError as error:
        raise Refusal(404, "this run has drawn no picture of this name") from error


async def _run(studio: Studio, name: str) -> Run:
    try:
        return await aside(studio.runs.get, name)
    except KeyError as error:
        raise Refusal(404, "there is no run of this name") from error


def _summary(run: Run) -> RunSummary:
    record = run.record
    return RunSummary(
        name=run.name, stage=record.stage, preset=record.preset, finished=record.finished, changed=run.changed
    )
