package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/internal/rpc"
)

// userTokenEnv is the variable that has a user's token, for programs.
const userTokenEnv = "WRAY_TOKEN"

func newLogin() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "login", Short: "Keep a token, by which a cluster knows you", Args: cobra.NoArgs,
		Long: `Login reads a token from standard input, asks a node of its cluster whether it is good,
and keeps it in a file of yours, which nobody else can read. From then on the commands
that take --address HOST:PORT use it there. A token is never an argument: others see a
command line. Programs give it in $` + userTokenEnv + ` instead.`,
		Example: "  wray login --address 192.0.2.1:7420\n  wray login --address 192.0.2.1:7420 < token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := clusterAddress(address)
			if err != nil {
				return err
			}
			text, err := readToken(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			token, err := access.ParseSecret(strings.TrimSpace(text))
			if err != nil {
				return withHint(err, "have one made on a head: wray token create USER")
			}
			c, err := rpc.NewUser(token, address)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Jobs(cmd.Context()); err != nil {
				return (&operatorClient{c, address}).explain(err)
			}
			path, err := tokenFile(address)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := auth.WriteFile(path, []byte(token.Reveal()+"\n")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wray: token %s is kept for %s; it is forgotten with: wray logout --address %s\n", token.ID(), address, address)
			return err
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "`HOST:PORT` of any node of the cluster (default $"+nodeaddr.Env+")")
	return cmd
}

// readToken reads a line. At a terminal it asks for it, and what is typed is not
// shown.
func readToken(in io.Reader, prompt io.Writer) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(prompt, "token, which is not shown: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(prompt)
		if err != nil && err != io.EOF {
			return "", err
		}
		return string(b), nil
	}
	text, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return text, nil
}

func newLogout() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "logout", Short: "Forget a token that wray login keeps", Args: cobra.NoArgs,
		Long: `Logout removes the file in which wray login has kept a token. The token is as good as
before: wray token revoke makes it worthless.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := clusterAddress(address)
			if err != nil {
				return err
			}
			path, err := tokenFile(address)
			if err != nil {
				return err
			}
			if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
				return &usageError{fmt.Errorf("no token is kept for %s", address)}
			} else {
				return err
			}
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "`HOST:PORT`, as for wray login (default $"+nodeaddr.Env+")")
	return cmd
}

// clusterAddress is an address HOST:PORT, that of a flag or of the environment.
func clusterAddress(flag string) (string, error) {
	address := cmp.Or(flag, os.Getenv(nodeaddr.Env))
	if !overNetwork(address) {
		return "", &usageError{withHint(fmt.Errorf("%q is no address of a cluster's node", address), "write --address HOST:PORT; a node of yours on this machine knows you without a token")}
	}
	return address, nil
}

// overNetwork reports whether an address is HOST:PORT.
func overNetwork(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && host != "" && !strings.ContainsAny(address, "/@")
}

// tokenFile is where the token for an address is kept.
func tokenFile(address string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", withHint(err, "set XDG_CONFIG_HOME, or give the token in $%s", userTokenEnv)
	}
	return filepath.Join(dir, "wray", "tokens", url.PathEscape(strings.ToLower(address))), nil
}

// userToken is the token for an address: of the environment, or one that was kept;
// false where there is none.
func userToken(address string) (access.Secret, bool, error) {
	if text := os.Getenv(userTokenEnv); text != "" {
		t, err := access.ParseSecret(strings.TrimSpace(text))
		if err != nil {
			return t, false, withHint(fmt.Errorf("$%s: %w", userTokenEnv, err), "it is a user's token, which wray token create makes; one with which a node joins is $%s", tokenEnv)
		}
		return t, true, nil
	}
	path, err := tokenFile(address)
	if err != nil {
		return access.Secret{}, false, nil // then none was kept
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return access.Secret{}, false, nil
	}
	if err != nil {
		return access.Secret{}, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return access.Secret{}, false, err
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return access.Secret{}, false, withHint(fmt.Errorf("%s has a token and mode %#o: others may have read it", path, st.Mode().Perm()), "revoke the token, and log in with another; or chmod 600 it, if nobody has")
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return access.Secret{}, false, err
	}
	t, err := access.ParseSecret(strings.TrimSpace(string(b)))
	if err != nil {
		return t, false, withHint(fmt.Errorf("%s: %w", path, err), "log in again: wray login --address %s", address)
	}
	return t, true, nil
}
