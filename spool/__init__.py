"""Job directories on a file system: the queue, the record and the debugger at once.

The grammar of a spool, format 1 (`layout.py` owns every name; `docs/spool-format.md` explains each file):

    SPOOL/
      spool.json                            format number, created
      workers/WORKER/                       one folder for each worker process
        worker.json  lock  beat  now        who it is; held while it lives; its pulse; what it runs
      runs/RUN/
        run.json  workflow.yaml  coordinator.lock  events.jsonl
        fanouts/001-SOURCE/                 one fan-out
          fanout.json  state.json           what is fanned out; where a resume starts again
          shared/                           what many jobs share, written once and linked into them
          todo/ done/ failed/ cancelled/    one ticket for each job, moved by rename
          jobs/0002-BRANCH/                 a job
            job.json  input.json  [base.json]  workflow.yaml
            claim.1 -> user@host:pid:token  who has attempt 1
            result.1.json                   what attempt 1 ended with
            stdout.1.log  stderr.1.log      only where something was printed
            result.json                     the accepted result
            fanouts/...                     fan-outs inside this branch, in the same format

Files of a job directory are complete when they appear and never change. A claim is a symbolic link: `symlink()`
is exclusive and complete in one call, also over NFS. Which attempt is next follows from the newest claim
(`attempts.decide` is this table as a pure function):

    newest claim                                        then
    none                                                attempt 1 is free
    a successful result                                 finished
    a failed result, retries left, back-off passed      attempt N+1 is free
    a failed result, no retries left                    failed for good
    no result, its worker lives                         running
    no result, its worker is dead                       lost; N+1 is free, up to `max_lost`

Job directories are the truth; tickets are an index that any reader mends. Promised: one accepted result for each
job, whatever dies or comes back late; results are never half-read and never lost. Not promised: that work runs only
once (a job whose worker died runs again), or that two clocks agree (none are ever compared).

This package knows nothing of graphs, workflows or ssh, and imports nothing of ours.
"""
