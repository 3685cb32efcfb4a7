"""The report of a run: one HTML page that needs nothing else.

    run --record--> jobs and their attempts --totals--> counts, histograms, groups of failures, workers
            +--detail--> inputs, results, tracebacks, ends of output of some jobs      +--drawing--> the workflow
                                      +--data--> JSON        +--page--> HTML

The page is bounded, however large the run is: `data.Limits` says by what, and the page says what it leaves out.
Everything in it comes from the record; nothing of it is ever run as a script, or fetched from anywhere.
"""
