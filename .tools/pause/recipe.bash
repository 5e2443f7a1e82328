packages=(.)
usual_time='a few seconds'
