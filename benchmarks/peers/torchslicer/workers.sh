# Starts two workers, then the driver, and ends when all have: workers.sh PYTHON DRIVER ROWS FOLDER
here=$(dirname "$2")
WORKER_ADDRESS=127.0.0.1:50061 PORT=50061 "$1" "$here/worker.py" &
WORKER_ADDRESS=127.0.0.1:50071 PORT=50071 "$1" "$here/worker.py" &
"$1" "$2" "$3" "$4" || exit
wait
