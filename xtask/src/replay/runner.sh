#!/bin/sh
# Runs the steps; their output goes to the console, between marks that xtask reads.
echo @MARK@up
for step in /replay/steps/*; do
    number=${step##*/}
    echo @MARK@step ${number#0}
    # Through a pipe: a program on a terminal may draw progress bars.
    { timeout --kill-after=10 @LIMIT@ sh $step; echo $? >/run/replay-status; } </dev/null 2>&1 | cat
    # The last line may have had no end.
    printf '\n@MARK@exit %s\n' $(cat /run/replay-status)
done
