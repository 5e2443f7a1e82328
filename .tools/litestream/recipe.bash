module=github.com/benbjohnson/litestream
packages=(tool)
variables=(main.Version=@VERSION@)
usual_time='1 minute'
