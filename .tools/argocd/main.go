// Command argocd is what ARGOCD_BINARY_NAME says, as in Argo CD's own binary: here its
// repo-server or its application-controller, the two that compare and sync; its
// cmp-server, which runs a plugin; or redis, a small one in memory that keeps their
// caches, as in Argo CD's own tests.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	cmpserver "github.com/argoproj/argo-cd/v3/cmd/argocd-cmp-server/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
)

func main() {
	var command *cobra.Command
	switch name := os.Getenv("ARGOCD_BINARY_NAME"); name {
	case "argocd-application-controller":
		command = controller.NewCommand()
	case "argocd-cmp-server":
		command = cmpserver.NewCommand()
	case "argocd-repo-server":
		command = reposerver.NewCommand()
	case "redis":
		command = &cobra.Command{Use: "redis ADDRESS", Args: cobra.ExactArgs(1), RunE: redis}
	default:
		fmt.Fprintf(os.Stderr, "ARGOCD_BINARY_NAME is '%s': no part of that name is in here\n", name)
		os.Exit(2)
	}
	if command.Execute() != nil {
		os.Exit(1)
	}
}

func redis(_ *cobra.Command, arguments []string) error {
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(arguments[0]); err != nil {
		return err
	}
	// Its keys grow old when it is told so.
	for range time.Tick(time.Second) {
		server.FastForward(time.Second)
	}
	return nil
}
