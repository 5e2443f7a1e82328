module=github.com/fsouza/fake-gcs-server
packages=(tool)
usual_time='about 1 minute'
