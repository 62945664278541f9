# SPDX-License-Identifier: Apache-2.0
"""One of each message, with values that differ from their defaults."""
from __future__ import annotations

from fresco_protocol import events as e
from fresco_protocol import messages as m
from fresco_protocol.files import File
from fresco_protocol.job import Job, JobState, Problem, Stage, Worker
from fresco_protocol.shot import Control, ControlKind, Cue, Delivery, Look, Matte, Plate, Rate, Shot, parse_frames

JPEG = b"\xff\xd8\xff\xe0 a small picture \xff\xd9"
JOB = "01a2b3c4-job"
SHOT = Shot(
    name="sh010", matte=Matte(sequence="/show/matte.####.exr"), delivery=Delivery(sequence="/show/out.####.exr"),
    plate=Plate(sequence="/show/caf\udce9.####.exr", frames=parse_frames("1001-1048x2"), rate=Rate.parse("23.976")),
    look=Look(prompt="ein Gemälde, 水彩画", cues=(Cue(frames=parse_frames("1010-1020"), prompt="at night"),),
              controls=(Control(kind=ControlKind.CANNY),)))
RECORD = Job(
    id=JOB, name="sh010", state=JobState.FAILED, priority=-3, client_key="k" * 32, output="/show/out.####.exr",
    submitted=1.5, started=2.5, ended=3.5, attempt=2, done=7, total=24, stage=Stage.DELIVER, seconds_left=0.5,
    problem=Problem(code="disk-full", what="no space", where="/show", remedy="Free some.", exit_code=4))

FILE = File(name="plate/p.1001.exr", size=2**21, sha256="ab" * 32)

EXAMPLES: tuple[m.Message, ...] = (
    m.Hello(software="fresco-blender 0.1.0"),
    m.Submit(shot=SHOT, client_key=m.fresh_key(), priority=7, files=(FILE,)),
    m.ListJobs(states=(JobState.QUEUED, JobState.RUNNING), skip=10, limit=5),
    m.ShowJob(job=JOB),
    m.Watch(since=2**40, journal="journal", job=JOB),
    m.Cancel(job=JOB), m.Pause(job=JOB), m.Resume(job=JOB), m.Retry(job=JOB),
    m.SetPriority(job=JOB, priority=100),
    m.Move(job=JOB, before="09f8e7d6-job"),
    m.Logs(job=JOB, since=3, limit=4),
    m.Preview(job=JOB),
    m.Upload(job=JOB),
    m.PutChunk(job=JOB, name="plate/p.1001.exr", offset=2**20, sha256="0f" * 32, data=b"\x00some bytes"),
    m.ListDelivery(job=JOB, skip=1000, limit=7),
    m.GetChunk(job=JOB, name="look.1001.exr", offset=3),
    m.Discard(job=JOB),
    m.Status(), m.ListModels(),
    m.Stop(at_once=True),
    m.Welcome(software="fresco-post 0.1.0", pid=4711, shot_schema=1, heartbeat=5),
    m.Submitted(record=RECORD, created=True),
    m.Jobs(records=(RECORD, RECORD), total=40),
    m.JobShown(record=RECORD, shot=SHOT),
    m.Watching(since=4, journal="journal"),
    m.Changed(record=RECORD),
    m.Uploaded(record=RECORD, held=(0, 2**40), whole=1, wrong=("plate/p.1001.exr",)),
    m.ChunkKept(held=2**20),
    m.DeliveryListed(record=RECORD, files=(FILE, File(name="look.1002.exr", size=0, sha256=None)), total=1002),
    m.ChunkGiven(offset=3, size=14, sha256="f0" * 32, data=b"some bytes\xff"),
    m.Lines(lines=("one", "", 'with "quotes" and \\'), next=6),
    m.PreviewImage(job=JOB, frame=-7, step=3, steps=20, width=96, height=54, jpeg=JPEG),
    m.ServerStatus(software="fresco-post 0.1.0", pid=1, started=1e9, queued=1, running=2, paused=3, last=5,
                   roots=("/show", "/scratch"), workers=(Worker(device="cuda:0", job=JOB, model="embedded",
                                                                memory_bytes=2**33, memory_total=2**34),)),
    m.Models(models=("embedded", "owner/name"), loras=("ink",), autoencoders=(), controlnets=("edges",)),
    m.Stopping(),
    m.Failed(problem=Problem(code="job-unknown", what="no such job", exit_code=2)),
    e.JobChanged(number=9, time=12.25, job=JOB, record=RECORD),
    e.Planned(number=9, time=12.25, job=JOB, frames=parse_frames("1001-1048x2,1050"), delivered=parse_frames("1001"),
              keyframes=parse_frames("1001-1041x8"), windows=(e.Window(keyframes=parse_frames("1001,1009")),),
              plate_size=(1920, 1080), working_size=(896, 512), rate="24000/1001", model="embedded", device="cpu",
              precision="float32", seed=2**62, job_hash="abc", scratch="/scratch", memory_bytes=2**33, seconds=60.5,
              tiles=6),
    e.Advanced(number=9, time=12.25, job=JOB, stage=Stage.KEYFRAMES, done=3, total=20, frame=1001, window=1, windows=2,
               seconds_left=4.5),
    e.Delivered(number=9, time=12.25, job=JOB, frame=1001, path="/show/out.1001.exr", keyframe=True),
    e.Warned(number=9, time=12.25, job=JOB, code="gap", text="frame held", frame=1002),
    e.Finished(number=9, time=12.25, job=JOB, rendered=20, reused=4, seconds=60.5, sidecar="/show/out.json",
               outputs=("/show/out.####.exr",)),
    e.Waited(number=9, time=12.25, job=JOB, product="window.3", owner="process 7 on farm-2"),
    e.Previewed(number=9, time=12.25, job=JOB, frame=1001, step=3, steps=20, width=96, height=54, jpeg=JPEG),
    e.Alive(number=9, time=12.25), e.WatchEnded(number=9, time=12.25), e.ServerStopping(number=9, time=12.25),
)
