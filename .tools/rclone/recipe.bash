module=github.com/rclone/rclone
packages=(tool)
variables=(github.com/rclone/rclone/fs.Version=@VERSION@)
usual_time='about 2 minutes'
