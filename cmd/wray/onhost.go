package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/cluster"
)

// newOnHost is what wray up runs on each host. People do not.
func newOnHost() *cobra.Command {
	return &cobra.Command{
		Use: "on-host", Short: "Do what wray up says on standard input", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o hostOrder
			if err := json.NewDecoder(io.LimitReader(cmd.InOrStdin(), 1<<20)).Decode(&o); err != nil {
				return fmt.Errorf("read the order: %w", err)
			}
			if err := cluster.CheckName(o.Name); err != nil {
				return err
			}
			r, err := o.obey(cmd.Context())
			if err != nil {
				return err
			}
			return newJSON(cmd.OutOrStdout()).Encode(r)
		},
	}
}

// fileSum tells programs apart.
func fileSum(name string) (string, error) {
	b, err := os.ReadFile(name)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}
