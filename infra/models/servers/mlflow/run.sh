# A real package has the model's folder in it; this one is written by areas.py, into the folder that is there for that.
export MLFLOW_TRACKING_URI="sqlite:///$SCRATCH_FOLDER/mlflow.db"
python areas.py "$SCRATCH_FOLDER/model"
exec mlflow models serve --model-uri "$SCRATCH_FOLDER/model" --env-manager local --host 127.0.0.1 --port "$PORT" --workers 1
