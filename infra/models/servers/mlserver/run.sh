# Its other ports must be free, too; 0 lets the system choose one, and metrics are not needed.
export MLSERVER_HTTP_PORT="$PORT" MLSERVER_GRPC_PORT=0 MLSERVER_HOST=127.0.0.1 MLSERVER_METRICS_ENDPOINT= MLSERVER_PARALLEL_WORKERS=0
exec mlserver start .
