# Nodes of a cluster whose heads run elsewhere (docs/DEPLOY.md). The token is a
# variable of Nomad's, which this job alone reads:
#
#   nomad var put nomad/jobs/wray token=...
#   nomad job run -var head=192.0.2.1:7420 deploy/nomad/wray.nomad.hcl

variable "head" {
  type        = string
  description = "where a head of the cluster listens, HOST:PORT"
}

variable "image" {
  type    = string
  default = "wray:latest"
}

variable "nodes" {
  type    = number
  default = 3
}

job "wray" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "task_states"
    min_healthy_time = "10s"
    healthy_deadline = "5m"
  }

  group "node" {
    count = var.nodes

    # Nodes are found at one port of the machine, by TCP and UDP.
    network {
      mode = "host"
      port "nodes" {}
    }

    # What the node keeps outlasts its process, and not the allocation: the next
    # one is another node.
    ephemeral_disk {
      size = 4096
    }

    restart {
      attempts = 3
      interval = "10m"
      delay    = "5s"
      mode     = "fail"
    }

    task "wray" {
      driver = "docker"
      user   = "65532:65532"

      # SIGTERM drains the node; then there is time in which others fetch what is
      # here alone. The client's max_kill_timeout has to permit it.
      kill_signal  = "SIGTERM"
      kill_timeout = "150s"

      config {
        image           = var.image
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        args = [
          "start",
          "--address=${var.head}",
          "--token=@${NOMAD_SECRETS_DIR}/token",
          "--name=wray-${NOMAD_SHORT_ALLOC_ID}",
          "--listen=${NOMAD_ADDR_nodes}",
          "--cluster-dir=${NOMAD_TASK_DIR}/cluster",
          "--socket=${NOMAD_TASK_DIR}/node.sock",
          "--spill-dir=${NOMAD_TASK_DIR}/spill",
          "--cpus=2",
          "--object-store-memory=1GiB",
          "--drain=60s",
        ]
      }

      env {
        HOME       = "${NOMAD_TASK_DIR}"
        TMPDIR     = "${NOMAD_TASK_DIR}"
        WRAY_CACHE = "${NOMAD_TASK_DIR}/cache"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/token"
        data        = "{{ with nomadVar \"nomad/jobs/wray\" }}{{ .token }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      resources {
        cores  = 2
        memory = 4096
      }
    }
  }
}
