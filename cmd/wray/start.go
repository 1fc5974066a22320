package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/internal/nodeaddr"
)

func newStart() *cobra.Command {
	var o nodeOptions
	var socket string
	cmd := &cobra.Command{
		Use: "start", Short: "Run a node that takes jobs and native clients", Args: cobra.NoArgs,
		Long: `Start runs a node until it is interrupted. It takes jobs (wray run --address) and
sessions of native programs (sdk.Connect) at a unix socket, from you alone: other
users are refused, and nothing listens on the network.`,
		Example: `  wray start
  wray run --address unix://$XDG_RUNTIME_DIR/wray/node.sock ./examples/wordcount`,
		RunE: func(cmd *cobra.Command, _ []string) error { return start(cmd, &o, socket) },
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", "", "listen at this `PATH` (default wray/node.sock in $XDG_RUNTIME_DIR, or run/node.sock in the cache)")
	o.flags(f)
	return cmd
}

func start(cmd *cobra.Command, o *nodeOptions, socket string) error {
	cache, err := node.CacheDir()
	if err != nil {
		return err
	}
	if socket == "" {
		if socket, err = nodeaddr.DefaultSocket(); err != nil {
			return err
		}
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return err
	}
	n, err := o.node(cache)
	if err != nil {
		return err
	}
	defer n.Close()
	s, err := n.Serve(socket, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "wray: a node listens at unix://%s\n", socket)
	<-cmd.Context().Done()
	return s.Close()
}

// inspected is a node that others can ask what it holds.
type inspected struct {
	*node.Node
	s *node.Server
}

// inspectable has n tell wray memory what it holds. Where it cannot listen, it
// is not asked.
func inspectable(n *node.Node) runner {
	dir, err := nodeaddr.RuntimeDir()
	if err != nil {
		return n
	}
	s, err := n.Serve(filepath.Join(dir, fmt.Sprintf("run-%d.sock", os.Getpid())), true)
	if err != nil {
		return n
	}
	return &inspected{n, s}
}

// Close ends the node.
func (n *inspected) Close() error {
	err := n.s.Close()
	if cerr := n.Node.Close(); err == nil {
		err = cerr
	}
	return err
}
