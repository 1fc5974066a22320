package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/etcdstore"
)

// etcdOptions say which etcd, that runs elsewhere, has the control state of a
// head. The zero etcdOptions say that the heads keep it.
type etcdOptions struct {
	Endpoints []string `json:"endpoints"`
	CA        string   `json:"ca,omitempty"`
	Cert      string   `json:"cert,omitempty"`
	Key       string   `json:"key,omitempty"`
	User      string   `json:"user,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
}

// etcdFile has the flags of etcd, for a head that is back without them. The
// password is not kept.
const etcdFile = "etcd.json"

// etcdPasswordEnv is the variable that has the password of --etcd-user.
const etcdPasswordEnv = "WRAY_ETCD_PASSWORD"

func (o *etcdOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.Endpoints, "etcd", nil, "as a head, keep the control state in the etcd at these `HOST:PORT,...`, and not in the heads; with TLS, except on this machine")
	f.StringVar(&o.CA, "etcd-ca", "", "`FILE` with who signs that etcd's certificates, in PEM (default who the machine trusts)")
	f.StringVar(&o.Cert, "etcd-cert", "", "`FILE` with the certificate to show that etcd, in PEM")
	f.StringVar(&o.Key, "etcd-key", "", "`FILE` with its key")
	f.StringVar(&o.User, "etcd-user", "", "user of that etcd; the password is in $"+etcdPasswordEnv)
	f.StringVar(&o.Prefix, "etcd-prefix", "", "what the keys there begin with: one for each cluster (default "+etcdstore.Prefix+")")
}

// absolute has the files found from wherever the head is started again.
func (o *etcdOptions) absolute() (err error) {
	for _, p := range []*string{&o.CA, &o.Cert, &o.Key} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// asked reports whether any of the flags was given.
func (o *etcdOptions) asked() bool {
	return len(o.Endpoints) > 0 || o.CA != "" || o.Cert != "" || o.Key != "" || o.User != "" || o.Prefix != ""
}

// recall fills in what was said last time, where no flag says anything. dir is
// where the head keeps its control state.
func (o *etcdOptions) recall(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, etcdFile))
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && o.asked():
		return nil
	case err == nil:
		err = json.Unmarshal(b, o)
	}
	if err != nil {
		return withHint(fmt.Errorf("%s: %w", filepath.Join(dir, etcdFile), err), "say which etcd with --etcd")
	}
	return nil
}

// check refuses what makes no sense together. kept says that the head has a
// control state of its own.
func (o *etcdOptions) check(head, kept bool) error {
	switch {
	case !o.asked():
		return nil
	case !head:
		return &usageError{withHint(errors.New("--etcd is for heads; other nodes reach the control state through them"), "add --head, or leave it out")}
	case len(o.Endpoints) == 0:
		return &usageError{withHint(errors.New("certificates or a prefix for an etcd, and none is named"), "name it with --etcd HOST:PORT")}
	case kept:
		return &usageError{withHint(errors.New("this head keeps its control state itself"), "leave out --etcd, or begin another cluster with another --cluster-dir")}
	case (o.Cert == "") != (o.Key == ""):
		return &usageError{errors.New("--etcd-cert and --etcd-key go together")}
	}
	return nil
}

// open reaches the etcd.
func (o *etcdOptions) open(ctx context.Context) (control.Store, error) {
	d := etcdstore.DialOptions{User: o.User, Password: os.Getenv(etcdPasswordEnv), Prefix: o.Prefix}
	secure := o.CA != "" || o.Cert != ""
	for _, e := range o.Endpoints {
		at, https := strings.CutPrefix(e, "https://")
		secure = secure || https || !loopback(strings.TrimPrefix(at, "http://"))
		d.Endpoints = append(d.Endpoints, strings.TrimSuffix(strings.TrimPrefix(at, "http://"), "/"))
	}
	if secure {
		c, err := o.tls()
		if err != nil {
			return nil, err
		}
		d.TLS = c
	}
	s, err := etcdstore.Dial(ctx, d)
	if err != nil {
		return nil, withHint(err, "see that it runs, and that --etcd-ca, --etcd-cert and --etcd-user fit it")
	}
	return s, nil
}

// remember keeps the flags of a head in dir.
func (o *etcdOptions) remember(dir string) error {
	if !o.asked() {
		return nil
	}
	b, err := json.Marshal(o)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	return auth.WriteFile(filepath.Join(dir, etcdFile), b)
}

func (o *etcdOptions) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		b, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("--etcd-ca: %s has no certificate in PEM", o.CA)
		}
	}
	if o.Cert != "" {
		if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
			return nil, fmt.Errorf("--etcd-cert and --etcd-key: %w", err)
		}
		// Read for each connection: it may be renewed while the head runs.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
			return &pair, err
		}
	}
	return c, nil
}

// etcdKept reports whether the head with this directory has its control state in
// an etcd that runs elsewhere.
func etcdKept(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, etcdFile))
	return err == nil
}
