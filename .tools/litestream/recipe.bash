module=github.com/benbjohnson/litestream
packages=(tool)
variables=(main.Version=@VERSION@)
usual_time='about 1 minute'
