"""Running a study: what is not finished is started in order, failures are isolated, and each end is noted."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt
from nnunetv2_hlfd.study.launcher import FINISHED, Ended, Launcher
from nnunetv2_hlfd.study.progress import Progress
from nnunetv2_hlfd.study.runs import Run, splits_file
from nnunetv2_hlfd.study.teachings import Job, Teaching, find_teachings
from nnunetv2_hlfd.utilities.atomic import write_text
from nnunetv2_hlfd.utilities.child_process import last_lines
from nnunetv2_hlfd.utilities.errors import UserError

_COLUMNS = ("run", "arm", "seed", "fold", "result", "seconds", "peak_memory_bytes", "parallel")


class Runner:
    """Runs what is not finished.

    Args:
        runs: all of a study, in order.
        folder: for runs.csv.
        launcher: starts them.
    """

    def __init__(self, runs: Sequence[Run], folder: Path, launcher: Launcher) -> None:
        self.runs, self.folder, self.launcher = list(runs), folder, launcher
        self.teachings = find_teachings(self.runs)
        self._taught: set[str] = set()  # names of teachings that have ended well since the start
        self.failed: dict[str, str] = {}

    def __call__(self) -> dict[str, str]:
        """Run everything; returns the names of the runs that failed or could not start, with the reason.

        Raises:
            UserError: where a training of an earlier start cannot be taken over.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs: list[Job] = [*self.teachings, *self.runs]
        self.launcher.adopt(jobs)
        with signals_interrupt(), self.launcher as launcher, Progress(self.runs) as progress:
            for ended in launcher.take_ended():  # while nobody watched
                self._finish(ended, progress)
            self.failed.clear()  # what failed then is tried again
            done = {*launcher.running, *self._taught}
            waiting = [job for job in jobs if not job.is_finished and job.name not in done]
            while waiting or launcher.running:
                waiting = self._start(waiting, progress)
                progress.update(len(launcher.running), len(waiting), len(self.failed))
                time.sleep(launcher.poll_seconds)
                for ended in launcher.take_ended():
                    self._finish(ended, progress)
                    if ended.goes_on:
                        waiting.insert(0, ended.run)
            progress.update(0, 0, len(self.failed))
        return self.failed

    def _start(self, waiting: list[Job], progress: Progress) -> list[Job]:
        """Start what can start; returns what still waits."""
        still = []
        for run in waiting:
            if reason := self._impossible(run):
                self.failed[run.name] = reason
                progress.say(f"skipped {run.name}: {reason}")
            elif self._has_room() and self._is_ready(run):
                log = self.launcher.start(run)
                progress.say(f"started {run.name}, log {log}")
            else:
                still.append(run)
        return still

    def _has_room(self) -> bool:
        return self.launcher.parallel is None or len(self.launcher.running) < self.launcher.parallel

    def _teachers(self, run: Job) -> list[Run]:
        """The run of this study that trains the teacher of a run, if it is one."""
        return [teacher for teacher in self.runs if teacher.model_folder == run.teacher and teacher.fold == run.fold]

    def _maps(self, run: Job) -> list[Teaching]:
        """What stores the maps that a run still needs."""
        return [teaching for teaching in self.teachings if run in teaching.runs and not teaching.is_finished]

    def _is_ready(self, run: Job) -> bool:
        """Its teacher and maps are there; the first training of a data set, which writes the splits, runs alone."""
        splits = splits_file(run.dataset).is_file() or not self.launcher.running
        maps = all(teaching.name in self._taught for teaching in self._maps(run))
        return splits and maps and all(teacher.is_finished for teacher in self._teachers(run))

    def _impossible(self, run: Job) -> str | None:
        sources: list[Job] = [*self._teachers(run), *self._maps(run)]
        failed = [source.name for source in sources if source.name in self.failed]
        return f"its teacher {failed[0]} failed" if failed else None

    def _finish(self, ended: Ended, progress: Progress) -> None:
        self._record(ended, progress)
        self._tell(ended, progress)
        if ended.result == FINISHED:
            if isinstance(ended.run, Teaching):
                self._taught.add(ended.run.name)
        elif not ended.goes_on:
            self.failed[ended.run.name] = f"{ended.result}, log {ended.log}"

    def _tell(self, ended: Ended, progress: Progress) -> None:
        name = ended.run.name
        if ended.result == FINISHED:
            progress.say(f"finished {name}{_duration(ended)}")
        elif ended.goes_on:
            progress.say(f"interrupted {name}{_duration(ended)}: {ended.result}. It goes on from its checkpoint.")
        else:
            lines = last_lines(ended.log) if ended.log.is_file() else "(There is no log.)"  # a job that never began
            progress.say(f"FAILED {name}: {ended.result}. The last lines of {ended.log}:\n\n{lines}\n")

    def _record(self, ended: Ended, progress: Progress) -> None:
        """Add a line to runs.csv: what each start took. Without it the trainings go on all the same."""
        run = ended.run
        seconds = None if ended.seconds is None else round(ended.seconds, 1)
        row = (run.name, run.arm, run.settings.seed, run.fold, ended.result, seconds, ended.peak_bytes)
        try:
            _add_row(self.folder / "runs.csv", (*row, self.launcher.parallel))
        except UserError as error:
            progress.say(f"WARNING: {error}")


def _duration(ended: Ended) -> str:
    return "" if ended.seconds is None else f" in {ended.seconds / 60:.1f} min"


def _add_row(file: Path, row: Sequence[object]) -> None:
    """Write the table with a row more; half a row of a process that was killed is left out."""
    text = io.StringIO()
    writer = csv.writer(text)
    if file.is_file():
        whole, end, _ = file.read_bytes().decode(errors="replace").rpartition("\n")
        text.write(whole + end)
    else:
        writer.writerow(_COLUMNS)
    writer.writerow(row)
    write_text(file, text.getvalue())
