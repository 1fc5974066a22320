package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/wasm/signature"
)

// detached is what the name of a file has behind the module's that has the
// module's signature.
const detached = ".sig"

func newKeygen() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "keygen NAME", Short: "Make a key to sign modules with", Args: cobra.ExactArgs(1),
		Long: `Keygen makes a key of Ed25519. NAME.key is the secret, readable by you alone; what
is printed is the line that has a node trust it, in the file of its --trust.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }) || name == "" {
				return &usageError{withHint(fmt.Errorf("%.80q is no name of a key", name), "give one without spaces and slashes")}
			}
			public, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				return err
			}
			if out == "" {
				out = name + ".key"
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return withHint(fmt.Errorf("%s is there", out), "what that key has signed is trusted by it alone: choose another name")
			} else if err != nil {
				return err
			}
			if _, err := f.Write(signature.MarshalKey(key)); err != nil {
				f.Close()
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), signature.FormatSigner(signature.Signer{Name: name, Key: public}))
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`FILE` that the key goes to (default NAME.key)")
	return cmd
}

func newSign() *cobra.Command {
	var keyFile, id, out string
	var apart bool
	cmd := &cobra.Command{
		Use: "sign FILE.wasm --key FILE.key", Short: "Sign a module", Args: cobra.ExactArgs(1),
		Long: `Sign adds a signature of the whole module to FILE.wasm, in a custom section in
front of all others, as the WebAssembly tool conventions have it; with --detached
to FILE.wasm.sig, and the module stays as it is. What is there from others stays.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				return &usageError{withHint(fmt.Errorf("sign needs a key"), "name its file by --key; wray module keygen makes one")}
			}
			if apart && out != "" {
				return &usageError{withHint(errors.New("--output and --detached are both said"), "the signature of --detached goes to FILE.wasm.sig: leave out either")}
			}
			key, err := readKey("--key", keyFile)
			if err != nil {
				return err
			}
			module, d, err := readSigned(args[0], "")
			if err != nil {
				return err
			}
			if d, err = signature.Sign(module, d, key, id); err != nil {
				return err
			}
			if apart {
				return os.WriteFile(args[0]+detached, d.Marshal(), 0o644)
			}
			if out == "" {
				out = args[0]
			}
			return os.WriteFile(out, signature.Join(module, d), 0o644)
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "`FILE` with the key, as wray module keygen makes it")
	f.StringVar(&id, "name", "", "what to call the key in the module, for people")
	f.StringVarP(&out, "output", "o", "", "where the signed module goes (default where it is)")
	f.BoolVar(&apart, "detached", false, "write the signature to FILE.wasm.sig, beside the module")
	return cmd
}

func newVerify() *cobra.Command {
	var trust, sig string
	cmd := &cobra.Command{
		Use: "verify FILE.wasm --trust FILE", Short: "Say who has signed a module", Args: cobra.ExactArgs(1),
		Long: `Verify prints the names of those in the file who have signed the whole module, as
it is, and fails where nobody has. The signature is in the module, or beside it in
FILE.wasm.sig.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if trust == "" {
				return &usageError{withHint(fmt.Errorf("verify needs those who are trusted"), "name their file by --trust: a name and a key on each line, as wray module keygen prints them")}
			}
			signers, err := readSigners(trust)
			if err != nil {
				return err
			}
			module, d, err := readSigned(args[0], sig)
			if err != nil {
				return err
			}
			by, err := signature.Verify(module, d, signers)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			for _, s := range by {
				fmt.Fprintln(cmd.OutOrStdout(), line(s.Name))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&trust, "trust", "", "`FILE` of those who are trusted")
	cmd.Flags().StringVar(&sig, "signature", "", "`FILE` with the signature (default in the module, or FILE.wasm.sig)")
	return cmd
}

// readSigned reads a module without its signature, and that; where sig names none
// it is in the module or beside it.
func readSigned(file, sig string) (module []byte, d signature.Data, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if module, d, err = signature.Split(b); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if sig == "" && d == nil {
		if _, err := os.Stat(file + detached); err == nil {
			sig = file + detached
		}
	}
	if sig != "" {
		if b, err = os.ReadFile(sig); err != nil {
			return nil, nil, err
		}
		if d, err = signature.Parse(b); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", sig, err)
		}
	}
	return module, d, nil
}

// withDetached puts the signature that lies beside a module into it.
func withDetached(file string, wasm []byte) ([]byte, error) {
	if _, err := os.Stat(file + detached); err != nil {
		return wasm, nil
	}
	module, d, err := signature.Split(wasm)
	if err != nil || d != nil { // what is wrong with the module, the node says
		return wasm, nil
	}
	if _, d, err = readSigned(file, file+detached); err != nil {
		return nil, err
	}
	return signature.Join(module, d), nil
}

// signing returns what signs a job's modules with the key in a file, as they are
// sent; where it names none they stay as they are.
func signing(file string) (func(wasm []byte) ([]byte, error), error) {
	if file == "" {
		return func(wasm []byte) ([]byte, error) { return wasm, nil }, nil
	}
	key, err := readKey("--sign", file)
	if err != nil {
		return nil, err
	}
	return func(wasm []byte) ([]byte, error) {
		module, d, err := signature.Split(wasm)
		if err != nil {
			return nil, err
		}
		if d, err = signature.Sign(module, d, key, ""); err != nil {
			return nil, err
		}
		return signature.Join(module, d), nil
	}, nil
}

func readKey(flag, file string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	key, err := signature.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, file, err)
	}
	return key, nil
}

func readSigners(file string) ([]signature.Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.TrustFlag, err)
	}
	signers, err := signature.ParseTrust(b)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", node.TrustFlag, file, err)
	}
	return signers, nil
}

// readTrust reads the files of --trust: everybody's, and tenants'.
func readTrust(flags []string) (all []signature.Signer, of map[string][]signature.Signer, err error) {
	for _, v := range flags {
		tenant, file, one := strings.Cut(v, "=")
		if !one {
			tenant, file = "", v
		} else if err := control.CheckTenant(tenant); err != nil {
			return nil, nil, &usageError{fmt.Errorf("%s %s: %w", node.TrustFlag, v, err)}
		}
		signers, err := readSigners(file)
		if err != nil {
			return nil, nil, err
		}
		if one {
			if of == nil {
				of = map[string][]signature.Signer{}
			}
			of[tenant] = append(of[tenant], signers...)
		} else {
			all = append(all, signers...)
		}
	}
	return all, of, nil
}
