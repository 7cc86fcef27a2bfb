export BENTOML_HOME="$SCRATCH_FOLDER" BENTOML_DO_NOT_TRACK=true
exec bentoml serve service:Prices --host 127.0.0.1 --port "$PORT"
