# Starts two workers, then the driver, and ends when all have: workload_w.sh PYTHON ROWS FOLDER
here=$(dirname "$0")
WORKER_ADDRESS=127.0.0.1:50061 PORT=50061 "$1" "$here/worker.py" &
WORKER_ADDRESS=127.0.0.1:50071 PORT=50071 "$1" "$here/worker.py" &
"$1" "$here/workload_w.py" "$2" "$3" || exit
wait
