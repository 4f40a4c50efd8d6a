"""What every process needs: settings, logs, metrics, its life from start to stop. Knows no gRPC and no Redis."""
