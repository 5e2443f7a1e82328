-- wrk posts one recorded AdmissionReview, and prints what the benchmark reads.
local file = assert(io.open(os.getenv("REVIEW"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()

function done(summary, latency)
	local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
	io.write(string.format("RESULT %d %.0f %.0f %d\n", summary.requests * 1000000 / summary.duration,
		latency:percentile(50), latency:percentile(99), failed))
end
